//! One configuration made several: what bounds all breakers together is shared out.

use steadfast::Config;

use crate::error::StartError;

/// The configurations of so many shards, whose bounds add up to those of the whole.
pub(crate) fn divide(whole: &Config, shards: usize) -> Result<Vec<Config>, StartError> {
    // As the program knows them, so that an error speaks of its own settings.
    whole.validate()?;
    (0..shards).map(|shard| part(whole, shards, shard)).collect()
}

fn part(whole: &Config, shards: usize, shard: usize) -> Result<Config, StartError> {
    let mut part = whole.clone();
    let limits = &mut part.limits;
    let counts = [
        &mut limits.max_peers,
        &mut limits.max_breakers,
        &mut limits.max_calls,
        &mut part.pacer.max_in_flight,
    ];
    for count in counts {
        *count = share(*count, shards, shard)?;
    }
    if let Some(bucket) = &mut part.pacer.rate {
        bucket.rate.count = share(bucket.rate.count, shards, shard)?;
        bucket.burst = share(bucket.burst, shards, shard)?;
    }
    if let Some(bucket) = &mut part.ping_rate {
        bucket.rate.count = share(bucket.rate.count, shards, shard)?;
        bucket.burst = share(bucket.burst, shards, shard)?;
    }
    part.pacer.assumed_rate.count = share(part.pacer.assumed_rate.count, shards, shard)?;
    Ok(part)
}

/// One share of `whole`; the first ones get what is left over. None may be empty.
fn share(whole: u32, shards: usize, shard: usize) -> Result<u32, StartError> {
    let too_many = || StartError::TooManyShards(shards);
    let of = u32::try_from(shards).map_err(|_| too_many())?;
    let left_over = whole.checked_rem(of).ok_or_else(too_many)?;
    let share = whole / of + u32::from(shard < left_over as usize);
    if share == 0 { Err(too_many()) } else { Ok(share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast::bucket::{BucketConfig, Rate};

    #[test]
    fn the_shares_add_up_to_the_whole_and_none_is_empty() {
        let mut whole = Config::new(1);
        whole.pacer.max_in_flight = 10;
        whole.pacer.rate = Some(BucketConfig { rate: Rate::per_second(7), burst: 3 });
        let parts = divide(&whole, 3).unwrap();
        let sum = |count: fn(&Config) -> u32| parts.iter().map(count).sum::<u32>();
        assert_eq!(sum(|part| part.pacer.max_in_flight), 10);
        assert_eq!(sum(|part| part.pacer.rate.unwrap().rate.count), 7);
        assert_eq!(sum(|part| part.pacer.rate.unwrap().burst), 3);
        assert_eq!(sum(|part| part.limits.max_peers), whole.limits.max_peers);
        assert_eq!(divide(&whole, 1).unwrap(), [whole.clone()]);
        assert!(matches!(divide(&whole, 4), Err(StartError::TooManyShards(4))), "a burst of 3");
        assert!(parts.iter().all(|part| part.validate().is_ok()));
    }
}
