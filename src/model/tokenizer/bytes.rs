//! GPT-2's byte alphabet: every byte has a printable character that stands for it in a vocabulary.
//! 0x21–0x7e, 0xa1–0xac and 0xae–0xff stand for themselves; the other 68 follow from U+0100 in order.

/// The byte a character stands for; None when it stands for none.
pub fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character that stands for a byte.
pub fn char_of(byte: u8) -> char {
    let code = match byte {
        0x00..=0x20 => u32::from(byte) + 0x100,
        0x7f..=0xa0 => u32::from(byte) - 0x7f + 0x121,
        0xad => 0x143,
        other => other.into(),
    };
    // Every value above is below the surrogates.
    char::from_u32(code).unwrap_or('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_own_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        // The three everybody knows.
        assert_eq!([char_of(b' '), char_of(b'\n'), char_of(b'A')], ['Ġ', 'Ċ', 'A']);
    }
}
