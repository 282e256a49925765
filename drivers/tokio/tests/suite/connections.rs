//! Connections under a paused clock: each order of the manager, carried out.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use crate::support::{
    CALLS, Conn, DIALS, Fake, Mode, World, add_peers, all_up, sound, start, state,
};
use steadfast_tokio::steadfast::breaker::State;
use steadfast_tokio::steadfast::{Ignored, Notice, RejectReason};
use steadfast_tokio::{
    BreakerId, Builder, CallError, Endpoint, EndpointId, Failure, LossCause, PeerId, PeerState,
    Refused, config,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

const PEER: PeerId = PeerId(0);

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_back_within_a_second_and_its_watcher_sees_each_state() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    let first = handle.connected(PEER).await.unwrap();
    let mut states = handle.watch(PEER).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The first at a moment of its own.
    assert_eq!(world.pings.load(SeqCst), 6, "one after each ten seconds of silence");

    let lost_at = Instant::now();
    assert_eq!(world.cut(LossCause::Eof), 1);
    states.wait_for(|state| *state == PeerState::Reconnecting).await.unwrap();
    assert!(handle.connection(PEER).is_none());
    states.wait_for(|state| *state == PeerState::Connected).await.unwrap();
    assert!(lost_at.elapsed() < Duration::from_millis(1_050), "{:?}", lost_at.elapsed());
    let second = handle.connection(PEER).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    sound(&handle);

    handle.disconnect(PEER).unwrap();
    state(&handle, PEER, PeerState::Disconnected).await;
    let shutdown = handle.shutdown(Duration::ZERO).await;
    assert_eq!((shutdown.calls_given_up, shutdown.tasks_left), (0, 0));
    assert!(second.is_over(), "closed in good order");
    assert_eq!(handle.underway().tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_come_back_in_a_ramp_under_the_limit_in_flight() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1_000);
    all_up(&handle, 1_000).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.set(Mode::Refuse);
    assert_eq!(world.cut(LossCause::Reset), 1_000);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(handle.stats().peers.connected, 0);
    world.set(Mode::Accept);
    let healed_at = Instant::now();
    let mut most = 0;
    while handle.stats().peers.connected < 1_000 {
        most = most.max(world.dialing.load(SeqCst));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(most <= 256, "{most} in flight");
    assert!(healed_at.elapsed() < Duration::from_secs(20), "{:?}", healed_at.elapsed());
    // And one for each ping that is out at this moment.
    let tasks = handle.underway().tasks;
    assert!((1_000..1_020).contains(&tasks), "one task a connection: {tasks}");
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_is_dropped_at_its_timeout() {
    let world = World::new();
    world.set(Mode::Hang);
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    tokio::time::sleep(Duration::from_millis(19_990)).await;
    assert_eq!((world.dials.load(SeqCst), world.dialing.load(SeqCst)), (1, 1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.dialing.load(SeqCst), 0, "the future is gone");
    assert_eq!(handle.stats().dial_failures.timeout, 1);
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn half_open_silence_is_found_by_the_pings() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 2);
    all_up(&handle, 2).await;
    let mut notices = handle.notices();
    world.conns()[0].silent.store(true, SeqCst);
    let silent_from = Instant::now();
    let silence = loop {
        match notices.recv().await.unwrap().1 {
            Notice::Suspected { silence, .. } => break silence,
            _ => continue,
        }
    };
    // The first ping within ten seconds, two of ten seconds each, or the deadline of thirty.
    assert!(silent_from.elapsed() <= Duration::from_millis(30_100), "{:?}", silent_from.elapsed());
    assert!(silence >= Duration::from_secs(20), "{silence:?}");
    all_up(&handle, 2).await;
    assert_eq!(world.closed.load(SeqCst), 1, "the silent one, in good order");
    assert_eq!(handle.stats().losses.suspected, 1);
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_is_our_own_failure() {
    let world = World::new();
    world.set(Mode::Panic);
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    while handle.stats().dial_failures.local == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.set(Mode::Accept);
    handle.connected(PEER).await.unwrap();
    let conn = world.conns().remove(0);
    conn.panics.store(true, SeqCst);
    conn.end(LossCause::Eof);
    state(&handle, PEER, PeerState::Reconnecting).await;
    assert_eq!(handle.stats().losses.local, 1);
    handle.connected(PEER).await.unwrap();
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_will_not_close_is_let_go_of() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 3);
    all_up(&handle, 3).await;
    world.close_hangs.store(true, SeqCst);
    let began = Instant::now();
    let shutdown = handle.shutdown(Duration::from_secs(60)).await;
    assert_eq!(shutdown.tasks_left, 0);
    assert!(began.elapsed() <= Duration::from_millis(5_100), "{:?}", began.elapsed());
    assert!(world.conns().is_empty());
    assert_eq!(handle.connect(PEER), Err(Refused::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_everything_with_it() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 10);
    all_up(&handle, 10).await;
    let mut states = handle.watch(PEER).unwrap();
    let other = handle.clone();
    drop(handle);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.conns().len(), 10, "another handle is alive");
    drop(other);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(world.conns().is_empty(), "all are let go of");
    assert_eq!(states.changed().await, None);
    assert_eq!(world.dialing.load(SeqCst), 0);
    assert_eq!(Arc::strong_count(&world), 1, "no task holds the transport");
}

#[test]
fn a_runtime_that_goes_takes_the_driver_with_it() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let handle = runtime.block_on(async {
        let handle = start(&world, config(1));
        add_peers(&handle, 500);
        all_up(&handle, 400).await;
        handle
    });
    drop(runtime);
    assert!(world.conns().is_empty());
    assert_eq!(handle.underway().tasks, 0);
    assert_eq!(handle.connect(PEER), Err(Refused::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn endpoints_change_and_the_next_dial_goes_to_the_new_one() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    handle.connected(PEER).await.unwrap();
    let elsewhere = Endpoint { id: EndpointId(7), breaker: DIALS, address: "new".to_owned() };
    handle.set_endpoints(PEER, vec![elsewhere]).unwrap();
    assert_eq!(
        handle.set_endpoints(PEER, vec![]),
        Err(Refused::Ignored(Ignored::NoEndpoints(PEER)))
    );
    world.cut(LossCause::Eof);
    state(&handle, PEER, PeerState::Reconnecting).await;
    handle.connected(PEER).await.unwrap();
    assert_eq!(*world.last_address.lock().unwrap(), "new");
    handle.remove_peer(PEER).unwrap();
    assert_eq!(handle.remove_peer(PEER), Err(Refused::Ignored(Ignored::UnknownPeer(PEER))));
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_inbound_connection_is_taken_or_closed() {
    let world = World::new();
    let mut config = config(1);
    let mut inbound = config.peer_profiles[0].clone();
    (inbound.name, inbound.inbound) = ("inbound".to_owned(), true);
    config.peer_profiles.push(inbound);
    let handle = start(&world, config);
    handle.add_peer(PEER, "inbound", vec![]).unwrap();
    handle.add_peer(PeerId(1), "default", vec![]).unwrap();
    let conn = Arc::new(Conn::new());
    handle.accept(PEER, Arc::clone(&conn)).unwrap();
    assert!(Arc::ptr_eq(&*handle.connected(PEER).await.unwrap(), &conn));
    let refused = Arc::new(Conn::new());
    let answer = handle.accept(PeerId(1), Arc::clone(&refused));
    assert_eq!(answer, Err(Refused::Ignored(Ignored::NotInbound(PeerId(1)))));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(refused.is_over() && !conn.is_over());
    conn.end(LossCause::Eof);
    state(&handle, PEER, PeerState::Disconnected).await;
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn breakers_of_several_shards_do_not_share_a_peer() {
    let world = World::new();
    let builder = Builder::new(Fake(Arc::clone(&world))).config(config(1)).shards(4);
    let handle = builder.shard_by(|breaker| breaker.0 / 10).start().unwrap();
    for breaker in (0..40).map(BreakerId) {
        handle.add_breaker(breaker, "default").unwrap();
    }
    let endpoint = |id, breaker| Endpoint {
        id: EndpointId(id),
        breaker: BreakerId(breaker),
        address: format!("{breaker}"),
    };
    let split = handle.add_peer(PEER, "default", vec![endpoint(0, 3), endpoint(1, 13)]);
    assert_eq!(split, Err(Refused::SplitOverShards(BreakerId(3), BreakerId(13))));
    for peer in 0..40 {
        let both = vec![endpoint(0, peer), endpoint(1, peer / 10 * 10)];
        let both = if peer % 10 == 0 { vec![endpoint(0, peer)] } else { both };
        handle.add_peer(PeerId(peer), "default", both).unwrap();
        handle.connect(PeerId(peer)).unwrap();
    }
    let again = handle.add_peer(PeerId(5), "default", vec![endpoint(0, 25)]);
    assert_eq!(again, Err(Refused::Ignored(Ignored::PeerExists(PeerId(5)))));
    all_up(&handle, 40).await;
    let moved = handle.set_endpoints(PeerId(5), vec![endpoint(0, 25)]);
    assert_eq!(moved, Err(Refused::SplitOverShards(BreakerId(5), BreakerId(25))));
    assert_eq!(handle.stats().dials, 40, "the sum of the shards");
    handle.remove_peer(PeerId(5)).unwrap();
    handle.add_peer(PeerId(5), "default", vec![endpoint(0, 25)]).unwrap();
    sound(&handle);
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let error = Builder::new(Fake(World::new())).start().unwrap_err();
    assert_eq!(error.to_string(), "there is no tokio runtime here to start on");
    let mut config = config(1);
    config.pacer.max_in_flight = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let error = Builder::new(Fake(World::new())).config(config).start().unwrap_err();
    assert_eq!(error.to_string(), "pacer.max_in_flight: 0 is less than 1");
}

#[tokio::test(start_paused = true)]
async fn a_close_timeout_without_end_is_none() {
    let world = World::new();
    let builder = Builder::new(Fake(Arc::clone(&world))).close_timeout(Duration::MAX);
    let shutdown = builder.start().unwrap().shutdown(Duration::MAX).await;
    assert_eq!((shutdown.calls_given_up, shutdown.tasks_left), (0, 0));
}

#[test]
fn a_shutdown_may_be_awaited_outside_of_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let world = World::new();
    let handle = runtime.block_on(async {
        let handle = start(&world, config(1));
        add_peers(&handle, 3);
        all_up(&handle, 3).await;
        handle
    });
    let _a_task_may_do_it: &(dyn Send + Sync) = &handle.shutdown(Duration::ZERO);
    let mut shutdown = tokio_test::task::spawn(handle.shutdown(Duration::from_secs(1)));
    let ended = loop {
        match shutdown.poll() {
            Poll::Ready(ended) => break ended,
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!((ended.tasks_left, world.closed.load(SeqCst)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_peer_of_another_shard_is_told_so() {
    let world = World::new();
    let mut config = config(1);
    let mut inbound = config.peer_profiles[0].clone();
    (inbound.name, inbound.inbound) = ("inbound".to_owned(), true);
    config.peer_profiles.push(inbound);
    let builder = Builder::new(Fake(Arc::clone(&world))).config(config);
    let handle = builder.shards(2).start().unwrap();
    let [dials, calls, good] = [BreakerId(1), BreakerId(2), BreakerId(3)];
    for (breaker, profile) in [(dials, "default"), (calls, "calls"), (good, "calls")] {
        handle.add_breaker(breaker, profile).unwrap();
    }
    handle.add_peer(PEER, "default", vec![Endpoint::only(dials, "one".to_owned())]).unwrap();
    handle.add_peer(PeerId(1), "inbound", vec![]).unwrap();
    handle.connect(PEER).unwrap();
    let profile = handle.call_profile("default").unwrap();
    let call = async |peer, breaker| {
        let run = |_, _| async { Ok::<_, Failure<String>>(()) };
        handle.with_connection(peer, breaker, profile, run).await
    };
    assert_eq!(call(PEER, good).await, Ok(()));
    let split = call(PEER, calls).await.unwrap_err();
    assert_eq!(split, CallError::SplitOverShards { peer: PEER, dials: Some(dials), calls });
    assert_eq!(split.to_string(), "b2 is of another shard than b1, and so than p0");
    // One that only dials us is of the shard of its own number.
    let split = CallError::SplitOverShards { peer: PeerId(1), dials: None, calls };
    assert_eq!(call(PeerId(1), calls).await, Err(split));
    let moved = handle.set_endpoints(PeerId(1), vec![Endpoint::only(calls, String::new())]);
    assert_eq!(moved, Err(Refused::SplitOverShards(BreakerId(1), calls)));
    handle.accept(PeerId(1), Arc::new(Conn::new())).unwrap();
    assert_eq!(call(PeerId(1), good).await, Ok(()));
    let unknown = CallError::Rejected { reason: RejectReason::UnknownPeer, retry_after: None };
    assert_eq!(call(PeerId(2), calls).await, Err(unknown));
    sound(&handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_add_one_peer_to_two_shards_one_succeeds() {
    let world = World::new();
    let handle = Builder::new(Fake(Arc::clone(&world))).shards(2).start().unwrap();
    let breakers = [BreakerId(0), BreakerId(1)];
    for breaker in breakers {
        handle.add_breaker(breaker, "default").unwrap();
    }
    for round in 0..1_000 {
        let peer = PeerId(round % 7);
        let begin = Arc::new(std::sync::Barrier::new(2));
        let adding = breakers.map(|breaker| {
            let (handle, begin) = (handle.clone(), Arc::clone(&begin));
            tokio::task::spawn_blocking(move || {
                begin.wait();
                handle.add_peer(peer, "default", vec![Endpoint::only(breaker, "x".to_owned())])
            })
        });
        let mut added = Vec::new();
        for adding in adding {
            added.push(adding.await.unwrap());
        }
        added.sort_by_key(Result::is_err);
        let exists = Err(Refused::Ignored(Ignored::PeerExists(peer)));
        assert_eq!(added, [Ok(()), exists], "round {round}");
        assert_eq!(handle.stats().peers.disconnected, 1);
        handle.remove_peer(peer).unwrap();
    }
    sound(&handle);
}

#[test]
fn a_shutdown_after_the_runtime_waits_for_nobody() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handle = runtime.block_on(async { start(&world, config(1)) });
    let profile = handle.call_profile("default").unwrap();
    let hang = |_| std::future::pending::<Result<(), Failure<()>>>();
    let mut call = tokio_test::task::spawn(handle.with_retry(CALLS, profile, hang));
    assert!(call.poll().is_pending());
    drop(runtime);
    let mut shutdown = tokio_test::task::spawn(handle.shutdown(Duration::from_secs(1)));
    assert!(shutdown.poll().is_ready());
    assert_eq!(call.poll(), Poll::Ready(Err(CallError::ShutDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn notices_come_in_order_whoever_causes_them() {
    let handle = start(&World::new(), config(1));
    let mut notices = handle.notices();
    let reader = tokio::spawn(async move {
        let (mut last, mut opened) = (None, 0);
        loop {
            match notices.recv().await {
                Ok((at, notice)) => {
                    assert!(last <= Some(at), "{notice:?}");
                    last = Some(at);
                    if let Notice::Breaker { breaker: CALLS, to, .. } = notice {
                        opened += u32::from(to == State::ForcedOpen);
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return opened,
            }
        }
    });
    let orders = (0..4).map(|_| {
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..5_000 {
                let _ = handle.force_open(CALLS);
                let _ = handle.reset_breaker(CALLS);
            }
        })
    });
    for order in orders.collect::<Vec<_>>() {
        order.await.unwrap();
    }
    sound(&handle);
    drop(handle);
    assert!(reader.await.unwrap() > 0);
}
