//! Any bytes as a CAR: reading ends with an answer, and what it accepts survives writing and reading again.
#![no_main]

use cid::Cid;
use libfuzzer_sys::fuzz_target;
use pipe::bundle::car::{Block, CarError, CarReader, CarWriter};

fuzz_target!(|data: &[u8]| {
    let Ok((roots, blocks)) = read(data) else { return };
    let mut writer = CarWriter::new(Vec::new(), &roots).expect("the roots were read");
    for block in &blocks {
        writer.block(&block.cid, &block.bytes).expect("the block was read");
    }
    let written = writer.finish().expect("the roots were there");
    assert_eq!(read(&written).expect("just written"), (roots, blocks));
});

fn read(data: &[u8]) -> Result<(Vec<Cid>, Vec<Block>), CarError> {
    let reader = CarReader::new(data)?;
    let roots = reader.roots().to_vec();
    Ok((roots, reader.collect::<Result<_, _>>()?))
}
