//! Numbers as people read them: rows, sizes, times, and how far a load is.

use std::time::Duration;

use crate::acceleration::Progress;

/// `1,000,000`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2,000 rows`.
pub(super) fn rows(count: usize) -> String {
    format!("{} {}", grouped(count), if count == 1 { "row" } else { "rows" })
}

/// `35 MB`, in powers of 1000: two digits where they say something.
pub(super) fn size(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be rounded to 1000 is 1 of the next.
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1000.0, next);
    }
    match value < 9.95 {
        true => format!("{value:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

/// `850 ms`, `1.2 s`, `3 min 4 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        // Rounded down, so that 59.96 s is no minute.
        1..60 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1,200,000 rows, 45 MB, 12.1 MB/s, 3.7 s`.
pub(super) fn progress(progress: &Progress) -> String {
    let Progress { rows: count, bytes, elapsed } = progress;
    format!("{}, {}, {:.1} MB/s, {}", rows(*count), size(*bytes), progress.mb_per_s(), span(*elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let grouped = [0, 999, 1_000, 12_345, 1_000_000].map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "12,345", "1,000,000"]);
        assert_eq!([0, 1, 2_000].map(rows), ["0 rows", "1 row", "2,000 rows"]);
        let sizes = [0, 999, 1_000, 9_949, 9_960, 35_400_000, 999_600_000, 1_250_000_000_000].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "35 MB", "1.0 GB", "1.2 TB"]);
    }

    #[test]
    fn times_have_two_units_at_most() {
        let spans = [12, 1_000, 59_999, 60_000, 184_000, 7_500_000, 273_600_000];
        let spans = spans.map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["12 ms", "1.0 s", "59.9 s", "1 min 0 s", "3 min 4 s", "2 h 5 min", "3 d 4 h"]);
    }

    #[test]
    fn a_load_tells_how_far_it_is() {
        let told = Progress { rows: 1_200_000, bytes: 45_000_000, elapsed: Duration::from_millis(3_700) };
        assert_eq!(progress(&told), "1,200,000 rows, 45 MB, 12.2 MB/s, 3.7 s");
    }
}
