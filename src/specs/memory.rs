//! What a process needed, from the texts Linux keeps about it. Reads no file itself.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of memory that a process had at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it: weights touched, working memory, the program itself.
    pub peak_bytes: u64,
    /// What of the peak is not mapped weights.
    pub beyond_weights_bytes: u64,
}

/// From `/proc/PID/status` and `/proc/PID/smaps`, and where the weights are mapped. None if either says no such
/// thing.
pub fn parse(status: &str, smaps: &str, weights: &Range<usize>) -> Option<Memory> {
    let peak = status.lines().find_map(|line| kilobytes(line.strip_prefix("VmHWM:")?))?;
    let (mut inside, mut mapped) = (false, None);
    for line in smaps.lines() {
        if let Some(range) = addresses(line) {
            inside = range.start < weights.end && weights.start < range.end;
        } else if let (true, Some(rest)) = (inside, line.strip_prefix("Rss:")) {
            mapped = Some(mapped.unwrap_or(0) + kilobytes(rest)?);
        }
    }
    Some(Memory { peak_bytes: peak, beyond_weights_bytes: peak.saturating_sub(mapped?) })
}

/// `  123 kB` in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n * 1024)
}

/// The head of a mapping: `7f00-7f10 r--s …`.
fn addresses(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpipe\nVmPeak:\t 900000 kB\nVmHWM:\t  700 kB\nVmRSS:\t  650 kB\n";
    const SMAPS: &str = "\
55d0-55e0 r-xp 00000000 08:01 1 /usr/bin/pipe
Size:                 64 kB
Rss:                  60 kB
7f00-7f80 r--s 00000000 08:01 2 /store/q8.safetensors
Size:                512 kB
Rss:                 500 kB
Pss:                 250 kB
7f80-7f90 rw-p 00000000 00:00 0
Rss:                  40 kB
";

    #[test]
    fn the_peak_less_the_weights_that_are_mapped() {
        let memory = parse(STATUS, SMAPS, &(0x7f00..0x7f7f)).unwrap();
        assert_eq!(memory, Memory { peak_bytes: 700 << 10, beyond_weights_bytes: 200 << 10 });
    }

    #[test]
    fn no_figure_where_the_texts_have_none() {
        assert_eq!(parse("Name:\tpipe\n", SMAPS, &(0x7f00..0x7f7f)), None);
        assert_eq!(parse(STATUS, SMAPS, &(0x9000..0x9100)), None, "the weights are not mapped");
        assert_eq!(parse(STATUS, "", &(0x7f00..0x7f7f)), None);
    }
}
