//! Claims of others that the leaves must bear out, one test each, named after their source.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test may panic")]

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use steadfast::backoff::{BackoffConfig, BackoffPolicy, Jitter};
use steadfast::bucket::Rate;
use steadfast::budget::{Budget, BudgetConfig, Withdrawal};
use steadfast::draw::{Draws, Purpose, uniform};
use steadfast::hedge::{Hedge, HedgeConfig};
use steadfast::throttle::{Throttle, ThrottleConfig, Throttled};
use steadfast::{Ratio, Time};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// gRPC, doc/connection-backoff.md: 1 s, × 1.6, at most 120 s, ± 20 %.
///
/// The difference: gRPC adds its jitter after the cap and waits up to 144 s; ours moves the
/// interval below the cap, [72 s, 120 s].
#[test]
fn grpc_connection_backoff() {
    let policy = BackoffConfig::grpc().validate().unwrap();
    let mut seconds = 1.0_f64;
    for k in 0..40 {
        let (low, high) = policy.bounds(k, Duration::ZERO);
        let near = |span: Duration, expected: f64| {
            assert!((span.as_secs_f64() - expected).abs() < 1e-6, "k = {k}: {span:?} {expected}");
        };
        near(policy.delay(k), seconds);
        if seconds * 1.2 <= 120.0 {
            near(low, seconds * 0.8);
            near(high, seconds * 1.2);
        } else {
            near(low, 120.0 - 0.4 * seconds);
            near(high, 120.0);
        }
        seconds = (seconds * 1.6).min(120.0);
    }
    assert_eq!(policy.bounds(39, Duration::ZERO), (ms(72_000), ms(120_000)));
}

/// AWS Architecture Blog: `sleep = random_between(0, min(cap, base * 2 ** attempt))`.
#[test]
fn aws_full_jitter() {
    let policy = aws(Jitter::Full);
    for attempt in 0..20 {
        let high = ms((5_u64 << attempt).min(2_000));
        assert_eq!(policy.bounds(attempt, Duration::ZERO), (Duration::ZERO, high));
    }
}

/// AWS Architecture Blog: `sleep = temp / 2 + random_between(0, temp / 2)`, where `temp` is
/// `min(cap, base * 2 ** attempt)`.
#[test]
fn aws_equal_jitter() {
    let policy = aws(Jitter::Equal);
    for attempt in 0..20 {
        let temp = ms((5_u64 << attempt).min(2_000));
        assert_eq!(policy.bounds(attempt, Duration::ZERO), (temp / 2, temp));
    }
}

/// AWS Architecture Blog: `sleep = min(cap, random_between(base, sleep * 3))`.
///
/// Ours is the same while 3 · sleep is below the cap, and beyond it draws from the bounded
/// interval instead of clipping what was drawn.
#[test]
fn aws_decorrelated_jitter() {
    let policy = aws(Jitter::Decorrelated);
    for (random, sleep) in [(0, 5), (1 << 63, 300), (u64::MAX, 666), (7 << 60, 17)] {
        let draw = Duration::from_nanos(uniform(random, 5_000_000, sleep * 3_000_000));
        assert_eq!(policy.jittered(9, ms(sleep), random), draw);
    }
    assert_eq!(policy.bounds(9, ms(2_000)), (ms(5), ms(2_000)));
    assert_eq!(aws_decorrelated(ms(2_000), u64::MAX / 2), ms(2_000));
    assert!(policy.jittered(9, ms(2_000), u64::MAX / 2) < ms(1_003));
}

/// The AWS contention figures: mean calls and mean time until all clients are done.
///
/// The model is that of aws-samples/aws-arch-backoff-simulator, in which the first retry waits
/// base · 2; time in whole nanoseconds instead of floats. The delays are our policy's, with
/// `min_delay` 0, but for the decorrelated ones: the figures are those of AWS's clipped form,
/// which is written out here and compared through the same model.
#[test]
fn aws_contention_table() {
    let table = include_str!("../data/aws_backoff.csv");
    let rows = table.lines().skip_while(|line| !line.starts_with("clients")).skip(1);
    let mut checked = 0;
    for row in rows {
        let cells: Vec<&str> = row.split(',').collect();
        let number = |at: usize| cells[at].parse::<f64>().unwrap();
        let clients: u64 = cells[0].parse().unwrap();
        let backoff: Box<dyn Fn(u32, Duration, u64) -> Duration> = match cells[1] {
            "None" => Box::new(|_, _, _| Duration::ZERO),
            "Decorr" => Box::new(|_, previous, random| aws_decorrelated(previous, random)),
            name => {
                let policy = aws(match name {
                    "Exponential" => Jitter::None,
                    "FullJitter" => Jitter::Full,
                    "EqualJitter" => Jitter::Equal,
                    other => panic!("{other}"),
                });
                Box::new(move |attempt, previous, random| {
                    policy.jittered(attempt, previous, random)
                })
            }
        };
        let runs: Vec<[f64; 2]> =
            (0..RUNS).map(|run| contention(clients, &*backoff, Draws::new(run, clients))).collect();
        let means = [0, 1].map(|at| runs.iter().map(|run| run[at]).sum::<f64>() / RUNS as f64);
        for (what, mean, expected, sd) in
            [("time", means[0], number(2), number(3)), ("calls", means[1], number(4), number(5))]
        {
            // Theirs is a mean of at least 30 runs, ours one of RUNS.
            let error = sd * (1.0 / 30.0 + 1.0 / RUNS as f64).sqrt();
            assert!((mean - expected).abs() < 3.0 * error, "{row}: {what} {mean} ± {error}");
            checked += 1;
        }
    }
    assert_eq!(checked, 20);
}

const RUNS: u64 = 60;

fn aws(jitter: Jitter) -> BackoffPolicy {
    BackoffConfig {
        base: ms(5),
        factor: Ratio::new(2, 1),
        cap: ms(2_000),
        min_delay: Some(Duration::ZERO),
        jitter,
    }
    .validate()
    .unwrap()
}

/// min(cap, U(base, 3 · previous)), as the article has it.
fn aws_decorrelated(previous: Duration, random: u64) -> Duration {
    let high = 3 * previous.max(ms(5));
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap();
    Duration::from_nanos(uniform(random, nanos(ms(5)), nanos(high))).min(ms(2_000))
}

/// What is on its way between a client and the one row.
enum Message {
    Read,
    ReadAnswer { version: u64 },
    Write { version: u64 },
    WriteAnswer { written: bool },
}

/// Each client reads the row's version, writes if it has not changed, and backs off if it has: when
/// the last of them is done, in milliseconds, and how many writes that took.
fn contention(
    clients: u64,
    backoff: &dyn Fn(u32, Duration, u64) -> Duration,
    draws: Draws,
) -> [f64; 2] {
    let mut drawn = 0;
    let mut random = || {
        drawn += 1;
        draws.draw(Purpose::Backoff, drawn)
    };
    let (mut version, mut writes, mut sequence, mut end) = (0, 0_u32, 0, 0);
    let mut waits = vec![(0_u32, Duration::ZERO); usize::try_from(clients).unwrap()];
    let mut messages = Vec::new();
    let mut queue = BinaryHeap::new();
    for client in 0..waits.len() {
        queue.push(Reverse((travel(&mut random), client, client)));
        messages.push(Message::Read);
        sequence += 1;
    }
    while let Some(Reverse((now, id, client))) = queue.pop() {
        end = now;
        let mut wait = 0;
        let answer = match messages[id] {
            Message::Read => Message::ReadAnswer { version },
            Message::ReadAnswer { version } => Message::Write { version },
            Message::Write { version: seen } => {
                writes += 1;
                let written = seen == version;
                version += u64::from(written);
                Message::WriteAnswer { written }
            }
            Message::WriteAnswer { written: true } => continue,
            Message::WriteAnswer { written: false } => {
                let (attempt, previous) = &mut waits[client];
                *attempt += 1;
                *previous = backoff(*attempt, *previous, random());
                wait = u64::try_from(previous.as_nanos()).unwrap();
                Message::Read
            }
        };
        queue.push(Reverse((now + wait + travel(&mut random), sequence, client)));
        messages.push(answer);
        sequence += 1;
    }
    [end as f64 / 1e6, f64::from(writes)]
}

/// Normal(10, 2) ms in nanoseconds: a sum of twelve uniform numbers has variance 1.
fn travel(random: &mut impl FnMut() -> u64) -> u64 {
    let sum: f64 = (0..12).map(|_| random() as f64 / u64::MAX as f64).sum();
    (10e6 + 2e6 * (sum - 6.0)).abs() as u64
}

/// The retry budgets compared in resilience.md C6.7, last three columns: attempts for each request,
/// and the share of requests that failed in the end, at six failure shares.
///
/// 1,000 requests a second that fail independently, three attempts at most; measured after the
/// first 50 s. Each success earns 0.1 and a retry costs 1; then a retry that succeeds is refunded
/// instead; then there is a reserve of 10 a second besides.
#[test]
fn aws_standard_retry_budget() {
    const TABLE: [(u32, [(f64, f64); 3]); 6] = [
        (5, [(1.051, 0.000), (1.052, 0.000), (1.052, 0.000)]),
        (10, [(1.099, 0.009), (1.112, 0.001), (1.114, 0.001)]),
        (20, [(1.087, 0.129), (1.239, 0.008), (1.239, 0.008)]),
        (50, [(1.052, 0.477), (1.097, 0.451), (1.122, 0.436)]),
        (90, [(1.010, 0.900), (1.011, 0.903), (1.022, 0.895)]),
        (100, [(1.000, 1.000), (1.000, 1.000), (1.010, 1.000)]),
    ];
    let plain = BudgetConfig { refund: false, reserve: None, capacity: 100, ..Default::default() };
    let refunds = BudgetConfig { refund: true, ..plain };
    let reserve = BudgetConfig { reserve: Some(Rate::per_second(10)), ..refunds };
    for (percent, row) in TABLE {
        for (config, (attempts, failed)) in [plain, refunds, reserve].into_iter().zip(row) {
            let clients = Clients { count: 1, per_second: 1_000, attempts: 3, percent };
            let seen = clients.run(config, ms(50_000), ms(550_000));
            let what = format!("f = {percent} %, {config:?}: {seen:?}");
            assert!((seen.0 - attempts).abs() < 0.005, "{what}, not {attempts}");
            assert!((seen.1 - failed).abs() < 0.005, "{what}, not {failed}");
        }
    }
}

/// figures-and-outages.md, 5.3: a thousand clients that start with five tokens each multiply an
/// overload by 1.88. Those that start empty do not, neither cold nor after ten minutes.
#[test]
fn a_thousand_budgets_do_not_multiply_an_overload() {
    for percent in [50, 60, 70, 80, 90, 100] {
        let clients = Clients { count: 1_000, per_second: 100, attempts: 4, percent };
        for span in [ms(10_000), ms(600_000)] {
            let (factor, _) = clients.run(BudgetConfig::default(), ms(0), span);
            assert!(factor <= 1.2, "f = {percent} %, {span:?}: {factor}");
        }
    }
    let clients = Clients { count: 1_000, per_second: 100, attempts: 4, percent: 50 };
    let trap = BudgetConfig { initial: 5, capacity: 5, ..Default::default() };
    let (factor, _) = clients.run(trap, ms(0), ms(10_000));
    assert!((1.8..1.9).contains(&factor), "{factor}");
}

/// Clients with a budget each, whose calls fail independently.
struct Clients {
    count: u64,
    /// Calls of all of them together.
    per_second: u64,
    /// For each call, the first included.
    attempts: u32,
    percent: u32,
}

impl Clients {
    /// Attempts for each call, and the share of calls that failed, from `from` on.
    fn run(&self, config: BudgetConfig, from: Duration, until: Duration) -> (f64, f64) {
        let policy = config.validate().unwrap();
        let draws = Draws::new(7, u64::from(self.percent));
        let mut budgets = vec![Budget::new(&policy, Time::ZERO); self.count as usize];
        let (mut calls, mut attempts, mut failed, mut drawn) = (0_u32, 0_u32, 0_u32, 0);
        for call in 0..until.as_secs() * self.per_second {
            let now = Time::from_millis(call * 1_000 / self.per_second);
            let budget = &mut budgets[(call % self.count) as usize];
            let mut succeeded = false;
            let mut tried = 0;
            while !succeeded && tried < self.attempts {
                if tried > 0 && budget.withdraw(&policy, now) != Withdrawal::Granted {
                    break;
                }
                tried += 1;
                drawn += 1;
                let random = draws.draw(Purpose::Backoff, drawn);
                succeeded = uniform(random, 0, 99) >= u64::from(self.percent);
            }
            if succeeded && !(tried > 1 && budget.refund(&policy, now)) {
                budget.deposit(&policy, now);
            }
            if now >= Time::ZERO + from {
                calls += 1;
                attempts += tried;
                failed += u32::from(!succeeded);
            }
        }
        (f64::from(attempts) / f64::from(calls), f64::from(failed) / f64::from(calls))
    }
}

/// SRE, ch. 21: beyond what the server takes it is sent K times that, so with K = 2 it refuses one
/// for each that it accepts, with K = 1.1 one for ten; whatever the demand.
#[test]
fn sre_client_side_throttling() {
    const TAKES: u32 = 300;
    for (multiplier, demand) in [(20, 1_000), (20, 2_000), (11, 1_000), (11, 2_000)] {
        let multiplier = Ratio::new(multiplier, 10);
        let config = ThrottleConfig { multiplier, padding: 1, ..Default::default() };
        let policy = config.validate().unwrap();
        let mut throttle = Throttle::new(&policy, Time::ZERO);
        let draws = Draws::new(7, 0);
        let (mut sent, mut accepted) = (0_u32, 0_u32);
        for second in 0..2_000 {
            let mut taken = 0;
            for request in 0..demand {
                let now = Time::from_nanos(second * 1_000_000_000 + request * 400_000);
                let random = draws.draw(Purpose::Throttle, second * demand + request);
                let passes = throttle.admit(&policy, random, now) == Throttled::Pass;
                let takes = passes && taken < TAKES;
                if takes {
                    taken += 1;
                    throttle.accepted(now);
                }
                if second >= 500 {
                    sent += u32::from(passes);
                    accepted += u32::from(takes);
                }
            }
        }
        let multiple = f64::from(sent) / f64::from(accepted);
        let expected = f64::from(multiplier.numerator) / 10.0;
        assert!((multiple - expected).abs() < 0.01, "K = {multiplier}, {demand}: {multiple}");
        let taken = f64::from(accepted) / 1_500.0;
        assert!(taken > 0.99 * f64::from(TAKES), "K = {multiplier}, {demand}: {taken}");
    }
}

/// Dean and Barroso, The Tail at Scale: a second request after the 95th percentile of the expected
/// latency costs about 5 % more requests.
#[test]
fn the_tail_at_scale_hedging() {
    let policy = HedgeConfig::default().validate().unwrap();
    let (mut hedge, draws) = (Hedge::new(&policy), Draws::new(7, 0));
    let (mut requests, mut hedges) = (0_u32, 0_u32);
    for n in 0..100_000 {
        // Exponential, with a mean of 10 ms.
        let share = draws.draw(Purpose::Throttle, n) as f64 / u64::MAX as f64;
        let took = ms(10).mul_f64(-libm::log(share.max(1e-9)));
        if n >= 1_000 {
            requests += 1;
            hedges += u32::from(took > hedge.delay(&policy));
        }
        hedge.record(&policy, took);
    }
    // Counted in sixteenths, the percentile errs on the long side: 4.1 % at the worst.
    let share = f64::from(hedges) / f64::from(requests);
    assert!((0.041..=0.052).contains(&share), "{share}");
}
