//! CAR files: a round trip, the bytes of the format, and every way a file can be wrong.

use std::io::Read;

use cid::Cid;
use cid::multihash::Multihash;
use pipe::bundle::car::{Block, CarError, CarReader, CarWriter, cid_dag_cbor, cid_raw};
use pipe_store::Digest;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

fn raw(bytes: &[u8]) -> Block {
    Block { cid: cid_raw(&Digest::of(bytes)), bytes: bytes.to_vec() }
}

fn write(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), roots).unwrap();
    for block in blocks {
        writer.block(&block.cid, &block.bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Cid>, Vec<Block>), CarError> {
    let reader = CarReader::new(bytes)?;
    let roots = reader.roots().to_vec();
    Ok((roots, reader.collect::<Result<_, _>>()?))
}

/// A CAR of "abc" and "second block", rooted in the first.
fn small() -> Vec<u8> {
    let blocks = [raw(b"abc"), raw(b"second block")];
    write(&[blocks[0].cid], &blocks)
}

/// Where the sections of `small` start.
const FIRST: usize = 59;
const SECOND: usize = FIRST + 1 + 36 + 3;

#[test]
fn addresses_are_those_of_the_specification() {
    // blake3("abc") and the well-known CIDv1 text form of raw + blake3
    let digest = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    let cid = cid_raw(&digest.parse().unwrap());
    assert_eq!(cid, cid_raw(&Digest::of(b"abc")));
    assert_eq!(cid.to_bytes()[..4], [1, 0x55, 0x1e, 32]);
    assert_eq!(pipe_store::hex(cid.hash().digest()), digest);
    assert!(cid.to_string().starts_with("bafkr4i"), "{cid}");
    let node = cid_dag_cbor(&[0xa0]);
    assert_eq!(node.to_bytes()[..4], [1, 0x71, 0x1e, 32]);
    assert!(node.to_string().starts_with("bafyr4i"), "{node}");
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let car = small();
    // 58 bytes of header: {"roots": [link], "version": 1}
    assert_eq!(car[..9], [58, 0xa2, 0x65, b'r', b'o', b'o', b't', b's', 0x81]);
    assert_eq!(car[9..14], [0xd8, 42, 0x58, 37, 0]);
    assert_eq!(car[14..50], raw(b"abc").cid.to_bytes());
    assert_eq!(car[50..FIRST], *b"\x67version\x01");
    assert_eq!(car[FIRST], 36 + 3);
    assert_eq!(car[SECOND - 3..SECOND], *b"abc");
    assert_eq!(car[SECOND], 36 + 12);
    assert_eq!(car.len(), SECOND + 1 + 36 + 12);
}

#[test]
fn other_hashes_and_codecs_are_taken_as_bytes() {
    let sha = |codec, bytes: &[u8]| Block {
        cid: Cid::new_v1(codec, Multihash::wrap(0x12, &Sha256::digest(bytes)).unwrap()),
        bytes: bytes.to_vec(),
    };
    let old = Block { cid: Cid::new_v0(*sha(0x70, b"old").cid.hash()).unwrap(), bytes: b"old".to_vec() };
    let blocks = [sha(0x55, b"raw"), sha(0x71, &[0xa0]), sha(0x70, b"pb"), old, raw(b"")];
    let roots = [blocks[0].cid, blocks[3].cid];
    assert_eq!(read(&write(&roots, &blocks)).unwrap(), (roots.to_vec(), blocks.to_vec()));
}

#[test]
fn a_section_streams_and_an_unread_one_is_checked() {
    let car = small();
    let mut reader = CarReader::new(&car[..]).unwrap();
    let first = reader.next_section().unwrap().unwrap();
    assert_eq!((first.cid, first.length, first.offset), (raw(b"abc").cid, 3, FIRST as u64));
    assert_eq!(reader.next_section().unwrap().unwrap().length, 12);
    let mut out = Vec::new();
    reader.copy_to(&mut out).unwrap();
    assert_eq!(out, b"second block");
    assert_eq!(reader.next_section().unwrap(), None);

    let mut damaged = car.clone();
    damaged[SECOND - 1] ^= 1;
    let mut reader = CarReader::new(&damaged[..]).unwrap();
    reader.next_section().unwrap();
    assert!(matches!(reader.next_section(), Err(CarError::Mismatch { offset: 59, .. })));
    assert!(reader.next().is_none(), "nothing comes after an error");
}

#[test]
fn a_cut_anywhere_is_seen() {
    let car = small();
    for cut in 0..car.len() {
        let result = read(&car[..cut]);
        match (cut, result) {
            (FIRST, Err(CarError::MissingRoot { .. })) | (SECOND, Ok(_)) => {}
            (FIRST | SECOND, other) => panic!("cut at {cut}: {other:?}"),
            (_, Err(CarError::Truncated { offset, missing, .. })) => {
                assert_eq!(offset, cut as u64);
                assert!(missing > 0);
            }
            (_, other) => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn lies_are_named_with_their_offset() {
    let car = small();
    let first = FIRST as u64;
    let end = car.len() as u64;
    let with = |at: usize, bytes: &[u8]| {
        let mut out = car.clone();
        out.splice(at..at + 1, bytes.iter().copied());
        read(&out).unwrap_err()
    };
    let behind = |bytes: &[u8]| read(&[&car, bytes].concat()).unwrap_err();

    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(matches!(with(0, &huge), CarError::HeaderTooLong { length: 0x7fff_ffff_ffff_ffff, .. }));
    assert!(matches!(with(FIRST, &huge), CarError::SectionTooLong { offset, .. } if offset == first));
    assert!(matches!(with(FIRST, &[0xa7, 0x00]), CarError::Varint { offset } if offset == first));
    assert!(matches!(with(FIRST, &[0xff; 10]), CarError::Varint { offset } if offset == first));
    assert!(matches!(with(FIRST, &[0]), CarError::EmptySection { offset } if offset == first));
    // a section shorter than its CID
    assert!(matches!(with(FIRST, &[20]), CarError::Cid { offset, .. } if offset == first + 1));
    assert!(matches!(with(FIRST + 1, &[9]), CarError::Cid { offset, .. } if offset == first + 1));
    // codec dag-json, hash sha3-512
    assert!(matches!(with(FIRST + 2, &[0x29]), CarError::Unsupported { .. }));
    assert!(matches!(with(FIRST + 3, &[0x14]), CarError::Unsupported { .. }));
    assert!(matches!(with(SECOND - 1, b"d"), CarError::Mismatch { offset, .. } if offset == first));
    assert!(matches!(with(1, &[0xa3]), CarError::Header { offset: 1, .. }));
    assert!(matches!(with(3, b"x"), CarError::Header { .. }));
    assert!(matches!(with(FIRST - 1, &[2]), CarError::Version { version: 2 }));

    assert!(matches!(behind(&[0; 16]), CarError::EmptySection { offset } if offset == end));
    assert!(matches!(behind(b"\x05junk!"), CarError::Cid { offset, .. } if offset == end + 1));
    assert!(matches!(behind(b"trailing"), CarError::Truncated { .. } | CarError::Cid { .. }));
    let again = behind(&car[FIRST..SECOND]);
    assert!(matches!(again, CarError::Duplicate { offset, first: f, .. } if offset == end && f == first));
    assert!(again.to_string().starts_with(&format!("CAR, byte {end}: bafkr4i")), "{again}");

    let empty = b"\x11\xa2\x65roots\x80\x67version\x01";
    assert!(matches!(read(empty), Err(CarError::NoRoots)), "{:?}", read(empty));
}

#[test]
fn an_announced_gigabyte_allocates_nothing() {
    /// Counts what is asked for and never ends.
    struct Endless<'a>(&'a [u8]);
    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(buffer.len() <= 1 << 16, "asked for {} bytes at once", buffer.len());
            let n = self.0.read(buffer)?;
            Ok(n)
        }
    }
    let mut car = small()[..FIRST].to_vec();
    car.extend([0x80, 0x80, 0x80, 0x80, 0x04]); // 1 GiB
    car.extend(raw(b"abc").cid.to_bytes());
    car.extend(b"abc");
    let mut reader = CarReader::with_limit(Endless(&car), u64::MAX).unwrap();
    let section = reader.next_section().unwrap().unwrap();
    assert_eq!(section.length, (1 << 30) - 36);
    let mut out = Vec::new();
    let cut = reader.copy_to(&mut out).unwrap_err();
    assert!(matches!(cut, CarError::Truncated { missing, .. } if missing == (1 << 30) - 36 - 3));
    assert!(out.capacity() < 1 << 16);
}

#[test]
fn the_writer_refuses_what_a_reader_would() {
    let block = raw(b"abc");
    assert!(matches!(CarWriter::new(Vec::new(), &[]), Err(CarError::NoRoots)));
    let new = || CarWriter::new(Vec::new(), &[block.cid]).unwrap();
    assert!(matches!(new().finish(), Err(CarError::MissingRoot { .. })));
    assert!(matches!(new().block(&block.cid, b"abd"), Err(CarError::Mismatch { .. })));
    assert!(matches!(
        new().block_from(&block.cid, 4, &mut &b"abc"[..]),
        Err(CarError::Truncated { missing: 1, .. })
    ));
    let mut writer = new();
    writer.block(&block.cid, b"abc").unwrap();
    assert!(writer.has(&block.cid));
    assert!(matches!(writer.block(&block.cid, b"abc"), Err(CarError::Duplicate { first: 59, .. })));
    let identity = Cid::new_v1(0x55, Multihash::wrap(0, b"abc").unwrap());
    assert!(matches!(new().block(&identity, b"abc"), Err(CarError::Unsupported { .. })));
    let short = Cid::new_v1(0x55, Multihash::wrap(0x1e, &Digest::of(b"abc").0[..20]).unwrap());
    assert!(matches!(new().block(&short, b"abc"), Err(CarError::Unsupported { .. })));
}

proptest! {
    #[test]
    fn any_blocks_survive(
        bodies in prop::collection::hash_set(prop::collection::vec(any::<u8>(), 0..300), 1..12),
        large in 0usize..200_000,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut blocks: Vec<Block> = bodies.iter().map(|b| raw(b)).collect();
        blocks.push(raw(&vec![5; large + 300]));
        let roots: Vec<Cid> = picks.iter().map(|i| blocks[i.index(blocks.len())].cid).collect();
        prop_assert_eq!(read(&write(&roots, &blocks)).unwrap(), (roots, blocks));
    }

    /// Whatever is done to a CAR, reading ends with an answer, and a block that comes out fits its CID.
    #[test]
    fn damage_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut car = small();
        for (at, value, kind) in edits {
            let at = at.index(car.len());
            match kind {
                0 => car[at] = value,
                1 => car.insert(at, value),
                _ => car.truncate(at.max(1)),
            }
        }
        if let Ok(reader) = CarReader::new(&car[..]) {
            for block in reader.filter_map(Result::ok) {
                let sha: [u8; 32] = Sha256::digest(&block.bytes).into();
                let digest = block.cid.hash().digest();
                prop_assert!(digest == Digest::of(&block.bytes).0 || digest == sha);
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&noise);
        let mut behind = small();
        behind.extend(noise);
        let _ = read(&behind);
    }
}
