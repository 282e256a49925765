//! Phi against numbers computed by others.
#![allow(clippy::expect_used, reason = "a test may panic")]

use steadfast::phi::{Scale, phi_of};

const TABLE: &str = include_str!("../data/phi_function.csv");

fn rows() -> impl Iterator<Item = [f64; 5]> {
    TABLE.lines().skip_while(|line| !line.starts_with("elapsed")).skip(1).map(|line| {
        let mut cells = line.split(',').map(|cell| cell.parse().expect("a number"));
        core::array::from_fn(|_| cells.next().expect("five cells"))
    })
}

#[test]
fn the_normal_scale_is_the_exact_tail_to_nine_digits() {
    let mut checked = 0;
    for [elapsed, mean, sd, exact, _] in rows().filter(|row| row[3] <= 300.0) {
        let ours = phi_of(Scale::Normal, elapsed, mean, sd);
        assert!((ours / exact - 1.0).abs() < 1e-9, "{elapsed},{mean},{sd}: {ours} for {exact}");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn the_logistic_scale_is_akkas_wherever_akka_has_a_number() {
    let mut checked = 0;
    for [elapsed, mean, sd, _, port] in rows().filter(|row| row[4].is_finite()) {
        let ours = phi_of(Scale::Logistic, elapsed, mean, sd);
        // The port takes the logarithm of 1 − x, so that it cannot see below 1e-16.
        assert!((ours - port).abs() < 1e-9 * port + 1e-15, "{elapsed},{mean},{sd}: {ours} {port}");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn where_akka_divides_by_zero_ours_goes_on() {
    for [elapsed, mean, sd, ..] in rows().filter(|row| row[4].is_infinite()) {
        assert!(phi_of(Scale::Logistic, elapsed, mean, sd) > 300.0, "{elapsed},{mean},{sd}");
    }
}
