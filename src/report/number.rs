//! Numbers as people read them. Knows no markup.

/// Three significant digits; without exponent where that stays short.
pub fn short(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if x == 0.0 => "0".into(),
        _ if !x.is_finite() => x.to_string(),
        _ if !(1e-3..1e6).contains(&size) => format!("{x:.1e}"),
        _ if size >= 100.0 => format!("{x:.0}"),
        _ => {
            // Below 100 there are at most two digits before the point, and at least one after.
            let digits = 2 - size.log10().floor() as i32;
            trimmed(format!("{x:.*}", digits.max(1) as usize))
        }
    }
}

/// With its sign, also if it is positive.
pub fn signed(x: f64) -> String {
    let text = short(x);
    match text.strip_prefix('-') {
        Some(size) => format!("−{size}"),
        None if x > 0.0 => format!("+{text}"),
        None => text,
    }
}

/// A score, to four places.
pub fn score(x: f64) -> String {
    format!("{x:.4}")
}

/// A probability in percent.
pub fn percent(p: f64) -> String {
    match p * 100.0 {
        p if p > 0.0 && p < 0.01 => "< 0.01 %".into(),
        p if p < 10.0 => format!("{p:.2} %"),
        // What is not certain does not read as certain.
        p if p < 100.0 => format!("{:.1} %", if p >= 99.95 { 99.9 } else { p }),
        p => format!("{p:.0} %"),
    }
}

fn trimmed(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// With a thin space between thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

pub fn millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = n as f64;
    let mut unit = "B";
    for next in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{size:.1} {unit}") }
}

/// Of milliseconds since 1970, in UTC; the calendar of Howard Hinnant's `civil_from_days`.
pub fn date(ms: u64) -> String {
    let (days, minutes) = (ms / 86_400_000 + 719_468, ms / 60_000 % 1440);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shorts = [0.0, 1.0, 0.28, 12.345, -309.8007, 1234.0, 2.5e7, 4.2e-5, 0.001, 99.96];
        let texts = ["0", "1", "0.28", "12.3", "-310", "1234", "2.5e7", "4.2e-5", "0.001", "100"];
        assert_eq!(shorts.map(short), texts);
        assert_eq!([1.5, -1.5, 0.0].map(signed), ["+1.5", "−1.5", "0"]);
        let percents = [1.0, 0.99999, 0.5, 0.0123, 1e-9, 0.0];
        assert_eq!(percents.map(percent), ["100 %", "99.9 %", "50.0 %", "1.23 %", "< 0.01 %", "0.00 %"]);
        assert_eq!([7, 1234, 1_520_640].map(count), ["7", "1\u{202f}234", "1\u{202f}520\u{202f}640"]);
        assert_eq!([12, 35_600, 83_000].map(millis), ["12 ms", "35.6 s", "1 min 23 s"]);
        assert_eq!([12, 43 << 10, 5 << 30].map(bytes), ["12 B", "43.0 KiB", "5.0 GiB"]);
        let days = [0, 951_782_400_000, 1_795_545_463_000];
        assert_eq!(days.map(date), ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2026-11-24 18:37 UTC"]);
    }
}
