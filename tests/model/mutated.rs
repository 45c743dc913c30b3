//! Random damage, by the thousand: whatever a file says, opening and using it ends in an answer or an error,
//! within a bounded amount of memory.

use std::sync::LazyLock;

use pipe::model::{Bytes, ModelFile};
use proptest::prelude::*;

use crate::support::{FolderParts, Parts, exercise};

/// One change to a file.
#[derive(Clone, Debug)]
enum Damage {
    Byte {
        at: usize,
        value: u8,
    },
    /// A number that is often believed.
    Number {
        at: usize,
        value: u64,
        width: usize,
    },
    Cut {
        at: usize,
    },
    Copy {
        from: usize,
        to: usize,
        length: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || prop_oneof![0usize..64, 0usize..14_000, any::<usize>()];
    let number =
        prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 63), Just(1 << 32), 0u64..64, any::<u64>()];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Byte { at, value }),
        4 => (at(), number, prop_oneof![Just(4usize), Just(8)])
            .prop_map(|(at, value, width)| Damage::Number { at, value, width }),
        1 => at().prop_map(|at| Damage::Cut { at }),
        1 => (at(), at(), 0usize..64).prop_map(|(from, to, length)| Damage::Copy { from, to, length }),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let length = bytes.len().max(1);
    let mut put = |at: usize, with: &[u8]| {
        let at = at % length;
        let end = (at + with.len()).min(bytes.len());
        bytes[at.min(end)..end].copy_from_slice(&with[..end - at.min(end)]);
    };
    match damage {
        Damage::Byte { at, value } => put(*at, &[*value]),
        Damage::Number { at, value, width } => put(*at, &value.to_le_bytes()[..*width]),
        Damage::Cut { at } => bytes.truncate(at % length),
        Damage::Copy { from, to, length: n } => {
            let from = from % length;
            let piece = bytes[from.min(bytes.len())..(from + n).min(bytes.len())].to_vec();
            let to = to % length;
            let end = (to + piece.len()).min(bytes.len());
            bytes[to.min(end)..end].copy_from_slice(&piece[..end - to.min(end)]);
        }
    }
}

/// The most virtual memory this process ever had, in KiB; None where the system does not say.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmPeak:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

static TOY: LazyLock<Vec<u8>> = LazyLock::new(|| Parts::toy().bytes());
static FOLDER: LazyLock<Vec<ModelFile>> = LazyLock::new(|| FolderParts::toy().files());

/// The folder with one file damaged.
fn damaged_folder(which: usize, changes: &[Damage]) -> Vec<ModelFile> {
    let mut files = FOLDER.clone();
    let mut bytes = files[which].bytes.to_vec();
    changes.iter().for_each(|change| apply(&mut bytes, change));
    files[which].bytes = Bytes::new(bytes);
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gguf(changes in proptest::collection::vec(damage(), 1..6)) {
        let before = peak_kib();
        let mut bytes = TOY.clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let _ = exercise(&[ModelFile::new("toy.gguf", Bytes::new(bytes))]);
        prop_assert!(peak_kib().zip(before).is_none_or(|(after, before)| after < before + (1 << 20)));
    }

    #[test]
    fn safetensors(changes in proptest::collection::vec(damage(), 1..6)) {
        let before = peak_kib();
        let _ = exercise(&damaged_folder(FOLDER.len() - 1, &changes));
        prop_assert!(peak_kib().zip(before).is_none_or(|(after, before)| after < before + (1 << 20)));
    }

    #[test]
    fn json(which in 0usize..4, changes in proptest::collection::vec(damage(), 1..6)) {
        let _ = exercise(&damaged_folder(which, &changes));
    }
}
