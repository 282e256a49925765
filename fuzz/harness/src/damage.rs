//! One thing done to a tree of JSON.

use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};

/// Does one thing to the tree that the bytes choose: a number becomes another one, something is
/// taken out, doubled, exchanged or put elsewhere.
pub(crate) fn damage(tree: &mut Value, bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = bytes.int_in_range(0..=9_u8)?;
    let keep: fn(&Value) -> bool = match kind {
        0..=4 => Value::is_number,
        5..=7 => |value| value.as_array().is_some_and(|items| !items.is_empty()),
        8 => |value| value.as_object().is_some_and(|fields| !fields.is_empty()),
        _ => |_| true,
    };
    let found = count(tree, keep);
    if found == 0 {
        return Ok(());
    }
    let mut place = || bytes.int_in_range(0..=found - 1);
    let (place, other) = (place()?, if matches!(kind, 4 | 9) { place()? } else { 0 });
    let other = nth(tree, &mut { other }, keep).cloned().unwrap_or_default();
    let Some(value) = nth(tree, &mut { place }, keep) else { return Ok(()) };
    match value {
        _ if matches!(kind, 4 | 9) => *value = other,
        Value::Number(number) => {
            let old = number.as_u64().unwrap_or_default();
            *value = match kind {
                0 => json!(old.wrapping_add(1)),
                1 => json!(old.wrapping_sub(1)),
                _ => json!(self::number(bytes)?),
            };
        }
        Value::Array(items) => {
            let (one, other) = (bytes.choose_index(items.len())?, bytes.choose_index(items.len())?);
            match kind {
                5 => items.swap(one, other),
                6 => items.push(items[one].clone()),
                _ => drop(items.remove(one)),
            }
        }
        Value::Object(fields) => {
            let name = fields.keys().nth(bytes.choose_index(fields.len())?).cloned();
            fields.remove(&name.unwrap_or_default());
        }
        _ => {}
    }
    Ok(())
}

/// A number: small, at an edge, or any.
pub(crate) fn number(bytes: &mut Unstructured<'_>) -> Result<u64> {
    let edge = [u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1, u32::MAX.into(), 1 << 28, 1_000_000];
    Ok(match bytes.arbitrary::<u8>()? {
        small @ 0..=127 => u64::from(small % 16),
        128..=159 => *bytes.choose(&edge)?,
        160..=219 => bytes.arbitrary::<u16>()?.into(),
        220..=239 => bytes.arbitrary::<u32>()?.into(),
        _ => bytes.arbitrary()?,
    })
}

fn count(tree: &Value, keep: fn(&Value) -> bool) -> usize {
    let below: usize = match tree {
        Value::Object(fields) => fields.values().map(|field| count(field, keep)).sum(),
        Value::Array(items) => items.iter().map(|item| count(item, keep)).sum(),
        _ => 0,
    };
    below + usize::from(keep(tree))
}

fn nth<'a>(
    tree: &'a mut Value,
    left: &mut usize,
    keep: fn(&Value) -> bool,
) -> Option<&'a mut Value> {
    if keep(tree) {
        if *left == 0 {
            return Some(tree);
        }
        *left -= 1;
    }
    match tree {
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, left, keep)),
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left, keep)),
        _ => None,
    }
}
