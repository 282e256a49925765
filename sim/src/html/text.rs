//! Words and numbers, made safe for a page.

use crate::simulation::Verdict;

/// Text that is text, whatever is in it.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

pub(super) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::Violated => "FAIL",
        Verdict::Unknown => "?",
    }
}

/// A number to be read: `1.04`, `55.5`, `2,162`.
pub(super) fn number(value: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 100 and rounded; the cast saturates"
    )]
    match value {
        value if value >= 100.0 => crate::report::grouped(value.round() as u64),
        value if value >= 10.0 => trimmed(format!("{value:.1}")),
        value => trimmed(format!("{value:.2}")),
    }
}

fn trimmed(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A number on an axis: `100k`, `2.5M`.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => trimmed(format!("{:.2}", value / 1e6)) + "M",
        value if value >= 1e4 => trimmed(format!("{:.1}", value / 1e3)) + "k",
        value => number(value),
    }
}

/// A number and its unit, which no line's end tears apart.
pub(super) fn with_unit(number: &str, unit: &str) -> String {
    format!("{number}\u{a0}{unit}")
}

/// So long, as people say it: `8 s`, `3 min`, `2.5 h`.
pub(super) fn spell(seconds: f64) -> String {
    let (span, unit) = match seconds {
        s if s >= 7_200.0 => (s / 3_600.0, "h"),
        s if s >= 300.0 => (s / 60.0, "min"),
        s => (s, "s"),
    };
    with_unit(&number(span), unit)
}

/// A moment on an axis that is so long.
pub(super) fn moment(seconds: f64, whole: f64) -> String {
    match whole {
        whole if whole >= 14_400.0 => format!("{} h", number(seconds / 3_600.0)),
        whole if whole >= 600.0 => format!("{} min", number(seconds / 60.0)),
        _ => format!("{} s", number(seconds)),
    }
}

pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        // What is not all must not look like it.
        p if (99.95..100.0).contains(&p) => with_unit("99.9", "%"),
        p => with_unit(&trimmed(format!("{p:.1}")), "%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let text = "<script>alert('1')</script> & \"so\"\u{0}";
        let safe = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;so&quot;\u{fffd}";
        assert_eq!(escaped(text), safe);
    }

    #[test]
    fn numbers_are_as_long_as_they_must_be() {
        let shown = [0.0, 1.0, 1.044, 55.51, 2_162.0, 100_000.0].map(number);
        assert_eq!(shown, ["0", "1", "1.04", "55.5", "2,162", "100,000"]);
        assert_eq!([5_000.0, 100_000.0, 2_500_000.0].map(short), ["5,000", "100k", "2.5M"]);
        let spells = [8.0, 600.0, 10_800.0].map(spell);
        assert_eq!(spells, ["8\u{a0}s", "10\u{a0}min", "3\u{a0}h"]);
        let shares = [0.999_99, 1.0, 0.5].map(percent);
        assert_eq!(shares, ["99.9\u{a0}%", "100\u{a0}%", "50\u{a0}%"]);
    }
}
