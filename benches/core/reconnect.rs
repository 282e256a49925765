//! A whole reconnect cycle: everybody is lost, stands in line, is dialed and is back.

use criterion::{BenchmarkId, Criterion, Throughput};
use steadfast::{Event, LossCause};

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("reconnect");
    for n in crate::sizes() {
        group.throughput(Throughput::Elements(u64::from(n)));
        let (mut manager, mut conns) = fleet::connected(n);
        let mut actions = Vec::new();
        group.bench_function(BenchmarkId::new("lost, spread, dialed, up", n), |bencher| {
            bencher.iter(|| {
                // Long enough that the connections were stable, and that all were heard.
                let mut now = manager.now() + std::time::Duration::from_secs(20);
                for conn in &conns {
                    manager.step_into(Event::Heard { conn: *conn }, now, &mut actions);
                }
                for conn in conns.drain(..) {
                    let lost = Event::Lost { conn, cause: LossCause::Reset };
                    manager.step_into(lost, now, &mut actions);
                }
                actions.clear();
                while manager.stats().peers.connected < n {
                    now = manager.next_deadline().expect("somebody waits for a deadline");
                    manager.step_into(Event::Tick, now, &mut actions);
                    fleet::connect_all(&mut manager, now, &mut actions, &mut conns);
                }
            });
        });
    }
    group.finish();
}
