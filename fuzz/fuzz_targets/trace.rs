//! Any bytes as a trace: opening ends with an answer, and so does asking for anything it may hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::trace::Trace;

fuzz_target!(|data: &[u8]| {
    let Ok(trace) = Trace::open(data) else { return };
    for prompt in &trace.prompts {
        for position in [0, prompt.computed.saturating_sub(1), prompt.computed, usize::MAX] {
            for slot in [0, trace.blocks.len() - 1, trace.blocks.len(), usize::MAX] {
                let digest = prompt.digest(position, slot);
                assert_eq!(digest.is_some(), position < prompt.computed && slot < trace.blocks.len());
                prompt.row(position, slot);
            }
        }
        prompt.root();
    }
});
