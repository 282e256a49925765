//! Pages: whole, small, safe, and the same twice.

use steadfast_sim::{Follow, Options, Page, Records, Run, Simulation};

fn simulation(scenario: &str, sets: &[&str]) -> Simulation {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let simulation = Simulation::from_scenario(scenario).and_then(|one| one.set_all(&sets));
    // Others check what holds; here it only takes time.
    let options = Options { invariants: Some(false), ledger: false, ..Options::default() };
    simulation.unwrap().options(options)
}

fn herd() -> Simulation {
    let sets = [
        "peers.device.count=200",
        "servers.lb.accept=40/s",
        "servers.lb.queue=20",
        "expect.naive.peak_dials=>= 200/s",
        "duration=90s",
    ];
    simulation("herd-lb-restart", &sets)
}

fn storm() -> Simulation {
    simulation("retry-storm", &["highest_load.policies=[]", "managers=2", "duration=90s"])
}

fn runs(simulation: &Simulation, beside: &[&str], follow: Follow) -> Vec<Run> {
    let beside: Vec<String> = beside.iter().map(|&name| name.to_owned()).collect();
    let records = Records { page: Some(follow), ..Records::default() };
    simulation.run_beside(&beside, 1, records, &mut |_| {}).unwrap()
}

fn page(runs: &[Run]) -> String {
    Page::new(&runs.iter().collect::<Vec<_>>()).to_string()
}

/// What a reader reads: the page without its drawings, styles and scripts.
fn text(page: &str) -> String {
    let mut text = page.to_owned();
    for element in ["svg", "style", "script", "pre"] {
        let (open, close) = (format!("<{element}"), format!("</{element}>"));
        while let Some(from) = text.find(&open) {
            let to = text[from..].find(&close).unwrap();
            text.replace_range(from..from + to + close.len(), " ");
        }
    }
    let (mut plain, mut inside) = (String::new(), false);
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                plain.push(' ');
            }
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    let lines = plain.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// How often something is on a page.
fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

#[test]
fn a_page_tells_what_broke_and_what_each_did() {
    insta::assert_snapshot!(text(&page(&runs(&herd(), &["naive"], Follow::Last))));
}

#[test]
fn a_page_of_calls_tells_of_one_call() {
    insta::assert_snapshot!(text(&page(&runs(&storm(), &["naive"], Follow::Last))));
}

#[test]
fn the_same_runs_give_the_same_bytes() {
    let once = page(&runs(&herd(), &["naive"], Follow::Last));
    assert!(once == page(&runs(&herd(), &["naive"], Follow::Last)));
}

#[test]
fn to_draw_a_run_changes_nothing() {
    for simulation in [herd(), storm()] {
        let plain = simulation.run(1).unwrap();
        let drawn = &runs(&simulation, &[], Follow::Last)[0];
        assert_eq!(plain.summary(), drawn.summary());
        assert_eq!(plain.timeline().to_string(), drawn.timeline().to_string());
    }
}

#[test]
fn the_points_agree_with_what_the_run_counts() {
    let runs = runs(&herd(), &[], Follow::Last);
    let (page, summary) = (page(&runs), runs[0].summary());
    let values = |key: &str| -> Vec<f64> {
        let (_, rest) = page.split_once(&format!("id=\"v-{key}\">")).unwrap();
        let lines: serde_json::Value =
            serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
        let values = lines[0]["values"].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let (up, dials) = (values("up"), values("dials"));
    assert_eq!((up.len(), dials.len()), (240, 240));
    assert_eq!(up.last(), Some(&200.0));
    assert_eq!(up.iter().copied().fold(200.0, f64::min), 0.0);
    assert_eq!(dials.iter().copied().fold(0.0, f64::max), summary.peak_dials_per_s as f64);
}

#[test]
fn every_series_is_drawn_for_every_run() {
    let herd = page(&runs(&herd(), &["naive", "grpc"], Follow::Last));
    for key in ["up", "dials", "waiting", "busy"] {
        assert_eq!(count(&herd, &format!("data-key=\"{key}\"")), 1, "{key}");
    }
    for run in ["#020200", "#020201", "#020202"] {
        assert_eq!(count(&herd, &format!("<polyline fill=\"none\" stroke=\"{run}\"")), 4, "{run}");
    }
    assert_eq!(count(&herd, "class=\"strip\""), 3 + 1 + 3, "phases, a breaker, a story");
    let storm = page(&runs(&storm(), &["naive"], Follow::Last));
    for key in ["good", "attempts", "waiting", "busy"] {
        assert_eq!(count(&storm, &format!("data-key=\"{key}\"")), 1, "{key}");
    }
    assert_eq!(count(&storm, "the same without the fault"), 2, "its legend and its values");
}

#[test]
fn eight_runs_with_faults_all_the_time_fit() {
    let all = ["naive", "grpc", "nats", "aws-full", "ours-told", "naive", "grpc"];
    let herd = ["peers.device.count=300", "peers.device.breaker=per-peer", "servers.lb.accept=3/s"];
    let flapping = ["peers.device.count=50", "peers.device.breaker=per-peer"];
    for (scenario, sets) in [("herd-lb-restart", &herd[..]), ("flapping-link", &flapping)] {
        let page = page(&runs(&simulation(scenario, sets), &all, Follow::Last));
        assert!(page.len() < 500_000, "{scenario}: {}", page.len());
        assert_eq!(count(&page, "<tr><th><span class=\"run r7\">"), 1);
        println!("{scenario}: {}", page.len());
    }
}

#[test]
fn a_page_asks_nobody_for_anything() {
    for page in [page(&runs(&herd(), &[], Follow::Last)), page(&runs(&storm(), &[], Follow::Last))]
    {
        for what in ["http://", "https://", " src=", "href=", "@import", "url(", "<link", "<img"] {
            assert_eq!(count(&page, what), 0, "{what}");
        }
        assert_eq!(count(&page, "default-src 'none'"), 1);
    }
}

#[test]
fn the_text_of_a_scenario_is_only_text() {
    let evil = "</script><script>alert(1)</script>";
    let outage = r#"
        name = "<img src=x>EVIL"
        about = "EVIL"
        source = "https://example.org/?a=1&b=2"
        duration = "10s"
        [servers.'a<b>']
        accept = "10/s"
        [peers.'w"w']
        count = 5
        endpoints = ["a<b>"]
        [policies.'EVIL']
        base = "ours"
        [[faults]]
        kind = "down"
        on = "servers.a<b>"
        at = "1s"
        for = "1s"
    "#;
    let simulation = Simulation::from_toml(&outage.replace("EVIL", evil)).unwrap();
    let page = page(&runs(&simulation, &[evil], Follow::Last));
    assert_eq!(count(&page, "alert(1)<"), 0);
    assert_eq!(count(&page, "<img"), 0);
    assert_eq!(count(&page, "a<b>"), 0);
    assert_eq!(count(&page, "</script>"), count(&page, "<script"), "each is ours");
    assert!(page.contains("https://example.org/?a=1&amp;b=2"), "a source is shown as text");
}

#[test]
fn a_page_of_a_run_that_kept_nothing_is_whole() {
    let run = storm().run(1).unwrap();
    let page = Page::new(&[&run]).names(&["last night".to_owned()]).to_string();
    assert!(page.ends_with("</html>\n"));
    assert!(page.contains("last night") && page.contains("digest"));
    assert_eq!(Page::new(&[]).to_string(), "");
}

#[test]
fn the_story_is_of_whom_one_asks_for() {
    let runs = runs(&herd(), &["naive"], Follow::Peer("device.7".to_owned()));
    let text = text(&page(&runs));
    assert!(text.contains("The story of device.7"), "{text}");
    assert_eq!(runs[1].followed(), Some(Follow::Peer("device.7".to_owned())));
    assert_eq!(herd().run(1).unwrap().followed(), None);
    let nobody =
        Records { page: Some(Follow::Peer("device.200".to_owned())), ..Records::default() };
    let error = herd().run_recorded(1, nobody, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("there is no peer `device.200`"), "{error}");
}
