//! Base64 (RFC 4648, with padding), as the control socket writes it.

/// The bytes; `None` for a text that is not base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let digits = text.len().checked_sub(padding).filter(|_| padding <= 2)?;
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..digits].chunks(4) {
        let mut word = 0_u32;
        for digit in 0..4 {
            word = word << 6 | group.get(digit).map_or(Some(0), |b| value(*b))?;
        }
        let bytes = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
        out.extend_from_slice(&bytes[..group.len() - 1]);
    }
    Some(out)
}

fn value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decodes_the_examples_of_the_standard_and_refuses_nonsense() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decode("//79"), Some(vec![0xff, 0xfe, 0xfd]));
        for text in ["Z", "Zg=", "Z===", "====", "Zg!=", "=Zg="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
