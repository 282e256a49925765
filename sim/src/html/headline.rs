//! What broke, and what each client came to, in sentences.

use std::fmt::{self, Write as _};

use super::text::{escaped, number, percent, spell, with_unit};
use super::{Page, tag};
use crate::draws::Draws;
use crate::expect::Measured;
use crate::measure::Facts;
use crate::policy::BUILT_IN;
use crate::scenario::{Fault, FaultKind};
use crate::schedule::Schedule;
use crate::simulation::Run;
use crate::tally::{Back, CallFacts, Second};

impl Page<'_> {
    pub(super) fn headline(&self, page: &mut String) -> fmt::Result {
        let Some(run) = self.runs.first() else { return Ok(()) };
        let scenario = &run.scenario;
        writeln!(
            page,
            "<header><p class=\"name\">{} · seed {}</p>",
            escaped(&scenario.name),
            run.seed
        )?;
        let lost = |run: &&Run| run.facts().lost;
        let alike = self.runs.iter().all(|other| lost(other) == run.facts().lost);
        writeln!(page, "<h1>{}</h1>", escaped(&broke(run, alike)))?;
        page.push_str("<ul class=\"came\">\n");
        for (place, name, run) in self.each() {
            write!(page, "<li>{} {}", tag(place, name), escaped(&came_to(run, alike)))?;
            let known = BUILT_IN.iter().find(|policy| policy.name == run.policy);
            let about = known.map_or("one of the scenario's own", |policy| policy.about);
            write!(page, "<small>{}</small>", escaped(about))?;
            page.push_str("</li>\n");
        }
        page.push_str("</ul>\n");
        writeln!(page, "<p class=\"about\">{}</p>", escaped(&scenario.about))?;
        let world = world(run);
        let same = match self.runs.len() {
            1 => "",
            _ => " Each client lived through the same outage, with the same luck.",
        };
        writeln!(page, "<p class=\"was\">{}{same}</p>", escaped(&world))?;
        if !run.sets.is_empty() {
            let sets: Vec<String> =
                run.sets.iter().map(|set| format!("<code>{}</code>", escaped(set))).collect();
            writeln!(page, "<p class=\"was\">Changed from the scenario: {}</p>", sets.join(", "))?;
        }
        if !scenario.source.is_empty() {
            writeln!(page, "<p class=\"was\">It stands for: {}</p>", escaped(&scenario.source))?;
        }
        page.push_str("</header>\n");
        Ok(())
    }
}

/// What a drawing calls a fault.
pub(super) fn label(fault: &Fault) -> String {
    let on = name(fault);
    match fault.kind.get_ref() {
        FaultKind::Pause => "we sleep".to_owned(),
        FaultKind::Offline => "no network here".to_owned(),
        FaultKind::Switch => "we change networks".to_owned(),
        FaultKind::Background => "in the background".to_owned(),
        FaultKind::Down => format!("{on} is down"),
        FaultKind::Silent => format!("{on} hangs"),
        FaultKind::Stall => format!("{on} stands still"),
        FaultKind::Reject => format!("{on} turns all away"),
        FaultKind::ResetAll => format!("{on} resets all"),
        FaultKind::Capacity | FaultKind::RequestCapacity => format!("{on} can do less"),
        FaultKind::Slow | FaultKind::Sluggish => format!("{on} is slow"),
        FaultKind::Lossy => format!("{on} loses messages"),
        FaultKind::Partition => format!("{on} lets nothing through"),
        FaultKind::Cut => format!("{on} is gone"),
        FaultKind::Drain => format!("{on} is drained"),
        FaultKind::DnsFail => format!("{on} cannot be looked up"),
        FaultKind::Churn => format!("{on}s come and go"),
        FaultKind::Failing => format!("{on} fails"),
        FaultKind::Cold => format!("{on} is emptied"),
        FaultKind::Surge => format!("{on} calls more"),
        FaultKind::Resolve => format!("{on}s lose an endpoint"),
        FaultKind::Leave => format!("{on}s leave"),
        FaultKind::HangUp => format!("{on} hangs up"),
    }
}

/// What it is that a fault happens to.
fn name(fault: &Fault) -> &str {
    let on = fault.on.get_ref();
    on.split_once('.').map_or(on.as_str(), |(_, name)| name)
}

/// What a fault does, as a sentence without its end.
fn does(fault: &Fault) -> String {
    let on = name(fault);
    match fault.kind.get_ref() {
        FaultKind::Down => format!("{on} was down"),
        FaultKind::Silent => format!("{on} hung silently"),
        FaultKind::ResetAll => format!("{on} reset all its connections"),
        FaultKind::Capacity => match fault.accept {
            Some(rate) => format!("{on} could do only {rate} handshakes"),
            None => format!("{on} could do fewer handshakes"),
        },
        FaultKind::Slow => format!("the link {on} was slow"),
        FaultKind::Lossy => format!("the link {on} lost messages"),
        FaultKind::Partition => format!("{on} silently let nothing through"),
        FaultKind::Cut => format!("the link {on} was gone"),
        FaultKind::Reject => format!("{on} turned every handshake away"),
        FaultKind::Drain => format!("an instance of {on} was drained"),
        FaultKind::DnsFail => match fault.share {
            Some(share) => format!("{share} of the look-ups of {on} failed"),
            None => format!("the name of {on} could not be looked up"),
        },
        FaultKind::Churn => format!("hosts of {on} went away and came back"),
        FaultKind::Pause => "our own process slept".to_owned(),
        FaultKind::Offline => "our own host had no network".to_owned(),
        FaultKind::Switch => "our own host changed networks".to_owned(),
        FaultKind::Background => "our app was in the background".to_owned(),
        FaultKind::Failing => match fault.share {
            Some(share) => format!("{share} of the requests to {on} failed"),
            None => format!("requests to {on} failed"),
        },
        FaultKind::Sluggish => match fault.times_slower {
            Some(times) => format!("{on} was {} times slower", number(times)),
            None => format!("{on} was slow"),
        },
        FaultKind::RequestCapacity => match fault.rate {
            Some(rate) => format!("{on} could do only {rate} requests"),
            None => format!("{on} could do fewer requests"),
        },
        FaultKind::Stall => format!("{on} stood still"),
        FaultKind::Cold => format!("{on} was emptied"),
        FaultKind::Surge => match fault.rate {
            Some(rate) => format!("{on} made {rate} calls"),
            None => format!("{on} made more calls"),
        },
        FaultKind::Resolve => format!("the names of {on} no longer led to their first endpoint"),
        FaultKind::Leave => match fault.share {
            Some(share) => format!("{share} of {on} were forgotten, and new afterwards"),
            None => format!("all of {on} were forgotten, and new afterwards"),
        },
        FaultKind::HangUp => format!("callers of {on} went away"),
    }
}

/// A fault with how long it lasted, or how often it came.
fn told(fault: &Fault, run: &Run) -> String {
    let schedule = Schedule::of(fault);
    let spans: Vec<_> = schedule.spans(Draws::new(run.seed)).take(100_000).collect();
    let mut does = does(fault);
    if run.managers > 1 {
        for (one, several) in [
            ("our own host", "our hosts"),
            ("our own process", "our processes"),
            ("our app was", "our apps were"),
        ] {
            does = does.replace(one, several);
        }
    }
    if schedule.is_each() {
        return format!("{does}, each for itself");
    }
    match spans.as_slice() {
        _ if !fault.heals => format!("{does} from then on"),
        [(from, to)] if to > from => {
            format!("{does} for {}", spell(to.as_secs_f64() - from.as_secs_f64()))
        }
        [] | [_] => does,
        several => format!("{does}, {} times", crate::report::grouped(several.len() as u64)),
    }
}

/// What broke: the faults, and what they did to whom.
fn broke(run: &Run, alike: bool) -> String {
    let faults = &run.scenario.faults;
    let told: Vec<String> = faults.iter().map(|fault| told(fault, run)).collect();
    let mut sentence = match told.as_slice() {
        [] => "Nothing broke".to_owned(),
        [one] => one.clone(),
        [one, other] => format!("{one}, and {other}"),
        [one, ..] => format!("{one}, and {} more faults", told.len() - 1),
    };
    let facts = run.facts();
    if facts.lost > 0 && alike {
        let _ = write!(sentence, ": {}", lost(facts));
    } else if let Some(calls) = &facts.calls {
        let offered = offered(calls);
        let _ = write!(sentence, " under {} calls a second", number(offered));
    }
    let mut letters = sentence.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    // A name of the scenario's own stays as it is written.
    match faults.first().is_some_and(|fault| sentence.starts_with(name(fault))) {
        true => sentence + ".",
        false => first + letters.as_str() + ".",
    }
}

/// How many connections were lost.
fn lost(facts: &Facts) -> String {
    let (lost, all) = [facts.lost, facts.peers].map(|n| crate::report::grouped(n.into())).into();
    match facts.lost {
        n if n == facts.peers => format!("all {all} connections were lost"),
        1 => format!("1 of {all} connections was lost"),
        _ => format!("{lost} of {all} connections were lost"),
    }
}

/// The world in a sentence.
fn world(run: &Run) -> String {
    let facts = run.facts();
    let mut parts = Vec::new();
    if facts.peers > 0 {
        parts.push(format!("{} connections", crate::report::grouped(facts.peers.into())));
    }
    let recorded = run.scenario.peer_count().saturating_sub(facts.peers);
    if recorded > 0 {
        parts.push(format!("{recorded} connections with recorded heartbeats"));
    }
    if let Some(calls) = &facts.calls {
        parts.push(format!("{} calls", crate::report::grouped(calls.calls())));
    }
    let whole = spell(run.scenario.duration.get_ref().as_secs_f64());
    let managers = match run.managers {
        1 => String::new(),
        n => format!(" of {} clients", crate::report::grouped(n as u64)),
    };
    format!("Simulated: {}{managers}, {whole}.", parts.join(" and "))
}

/// What a client came to.
fn came_to(run: &Run, alike: bool) -> String {
    let facts = run.facts();
    let mut sentences = Vec::new();
    if facts.lost > 0 {
        let most = crate::report::grouped(facts.most_down.into());
        let lost = format!("{}, at most {most} at once; ", lost(facts));
        let lost = if alike { String::new() } else { lost };
        let last = if times(run) > 1 { "last fault" } else { "fault" };
        sentences.push(lost + &came_back(facts, last));
    }
    if let Some(calls) = &facts.calls {
        sentences.push(came_through(run, calls));
    }
    if sentences.is_empty() && facts.peers > 0 {
        sentences.push("lost no connection.".to_owned());
    } else if sentences.is_empty() {
        sentences.push("what its detectors said is among the figures below.".to_owned());
    }
    sentences.join(" ")
}

/// How often something broke, up to a few times.
fn times(run: &Run) -> usize {
    let faults = run.scenario.faults.iter();
    faults.map(|fault| Schedule::of(fault).spans(Draws::new(run.seed)).take(9).count()).sum()
}

fn came_back(facts: &Facts, fault: &str) -> String {
    let mut sentence = match facts.all_up() {
        Measured::Value(after) if after > 0.0 => {
            format!("all back {} after the {fault}", spell(after))
        }
        Measured::Value(_) => format!("all back before the {fault} was over"),
        Measured::AtLeast(_) => {
            format!("{} back, the others never", percent(facts.recovered_share(None)))
        }
        Measured::Unknown => {
            format!("{} back when the run ended", percent(facts.recovered_share(None)))
        }
    };
    if let (Some(ideal), Measured::Value(_)) =
        (facts.ideal_s.filter(|ideal| *ideal >= 1.0), facts.all_up())
    {
        let _ = write!(sentence, " (the server needs {} at least)", spell(ideal));
    }
    let _ = write!(
        sentence,
        ", with {} {} for each and at most {} in a second",
        number(facts.dials_per_peer()),
        if facts.dials_per_peer() == 1.0 { "dial" } else { "dials" },
        crate::report::grouped(facts.peak_dials),
    );
    if facts.refused > 0 {
        let _ = write!(sentence, "; {} were refused", crate::report::grouped(facts.refused));
    }
    sentence + "."
}

/// Calls made per second, in the mean.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn offered(calls: &CallFacts) -> f64 {
    calls.calls() as f64 / calls.seconds.len().max(1) as f64
}

/// The most attempts per second, in any ten seconds.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn most_sent(seconds: &[Second]) -> f64 {
    let sums = seconds.windows(10).map(|ten| ten.iter().map(|second| second.attempts).sum::<u64>());
    sums.max().unwrap_or(0) as f64 / 10.0
}

fn came_through(run: &Run, calls: &CallFacts) -> String {
    let (offered, sent) = (offered(calls), most_sent(&calls.seconds));
    let success = calls.success().map_or_else(|| "none".to_owned(), percent);
    let within = calls
        .latency_s(0.99)
        .map(|seconds| format!(", 99\u{a0}% of them within {}", brief(seconds)));
    let within = within.unwrap_or_default();
    let well = calls.success().is_some_and(|share| share > 0.99);
    let mut sentence = match calls.back_to_twin() {
        _ if well => format!("{success} of all calls succeeded{within}"),
        Back::After(after) if after > 0.0 => {
            format!("recovers {} after the fault", spell(after))
        }
        Back::After(_) => "recovers as soon as the fault is over".to_owned(),
        Back::Never(least) => format!("never recovers, in the {} after the fault", spell(least)),
        Back::Unknown => format!("{success} of the calls succeeded"),
    };
    if sent > offered * 1.15 {
        let (asked, requests) = (number(offered), number(sent));
        let _ = write!(sentence, ": {asked} calls a second became {requests} requests");
        let busy = busy_at_the_end(run).filter(|busy| *busy > 0.9);
        if let (Back::Never(_), Some(busy)) = (calls.back_to_twin(), busy) {
            let _ = write!(sentence, " at a server that is {} busy", percent(busy));
            if calls.wasted > calls.succeeded() {
                sentence.push_str(", mostly with answers that come too late");
            }
        }
    }
    if calls.back_to_twin() != Back::Unknown && !well {
        let _ = write!(sentence, "; {success} of all calls succeeded");
    }
    if let Some(refused) = calls.rejected_share().filter(|share| *share > 0.005) {
        let _ = write!(sentence, ", {} failed at once, unsent", percent(refused));
    }
    sentence + "."
}

/// A short time.
pub(super) fn brief(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => with_unit(&number((s * 1e3).round()), "ms"),
        s => spell(s),
    }
}

/// For what share of the run's last third the busiest server was busy.
fn busy_at_the_end(run: &Run) -> Option<f64> {
    let points = &run.series.as_ref()?.points;
    let last = points.get(points.len() / 3 * 2..)?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
    (!last.is_empty()).then(|| last.iter().map(|point| point.busy).sum::<f64>() / last.len() as f64)
}
