//! A sealed line: one JSON object on one line that proves itself, and knows the line before it.
//!
//! ```text
//! {…,"prev":"a1b2c3d4","crc":"9f8e7d6c"}⏎
//! ```
//!
//! `crc` is the CRC-32C of every byte before `,"crc":"`; `prev` is the `crc` of the line before. So a
//! damaged line does not make its neighbours doubtful, and each checksum is there twice: its own, and
//! the copy in the line behind it. Every line of segments and checkpoints is made here.

/// Bytes of `,"crc":"12345678"}`.
pub(super) const TRAILER: usize = 18;
/// Bytes of `,"prev":"12345678"`.
const PREV: usize = 18;
const PREV_KEY: &[u8] = b",\"prev\":\"";
const CRC_KEY: &[u8] = b",\"crc\":\"";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A line whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed<'a> {
    /// The object without its closing brace, `prev` and `crc`.
    pub(super) body: &'a [u8],
    /// Checksum of the line before.
    pub(super) prev: u32,
    /// Checksum of this one.
    pub(super) crc: u32,
}

/// Ends the line that begins at `out[start]` and lacks its closing brace. Returns its checksum.
pub(super) fn seal(out: &mut Vec<u8>, start: usize, prev: u32) -> u32 {
    out.extend_from_slice(PREV_KEY);
    out.extend_from_slice(&hex(prev));
    out.push(b'"');
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&trailer(crc));
    out.push(b'\n');
    crc
}

/// Checks a line without its newline.
pub(super) fn unseal(line: &[u8]) -> Option<Sealed<'_>> {
    let (before, end) = split(line)?;
    let crc = stored(end)?;
    if crc32c::crc32c(before) != crc {
        return None;
    }
    let at = before.len().checked_sub(PREV)?;
    let (body, tail) = before.split_at(at);
    let prev = tail.strip_prefix(PREV_KEY)?.strip_suffix(b"\"")?;
    Some(Sealed { body, prev: unhex(prev)?, crc })
}

/// What the checksum covers, and the bytes that hold it.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    line.len().checked_sub(TRAILER).map(|at| line.split_at(at))
}

/// The checksum in the last bytes of a line, if they are well formed.
pub(super) fn stored(end: &[u8]) -> Option<u32> {
    unhex(end.strip_prefix(CRC_KEY)?.strip_suffix(b"\"}")?)
}

/// The last bytes of a line with this checksum.
pub(super) fn trailer(crc: u32) -> [u8; TRAILER] {
    let mut bytes = *b",\"crc\":\"00000000\"}";
    bytes[CRC_KEY.len()..CRC_KEY.len() + 8].copy_from_slice(&hex(crc));
    bytes
}

fn hex(n: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (i, digit) in digits.iter_mut().enumerate() {
        *digit = HEX[(n >> (28 - 4 * i)) as usize & 15];
    }
    digits
}

fn unhex(digits: &[u8]) -> Option<u32> {
    if digits.len() != 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |n, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u32::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_proves_itself_and_names_the_one_before() {
        let mut out = b"{\"v\":2".to_vec();
        let crc = seal(&mut out, 0, 0xa1b2_c3d4);
        assert_eq!(out, format!("{{\"v\":2,\"prev\":\"a1b2c3d4\",\"crc\":\"{crc:08x}\"}}\n").as_bytes());
        let line = &out[..out.len() - 1];
        assert_eq!(unseal(line), Some(Sealed { body: b"{\"v\":2", prev: 0xa1b2_c3d4, crc }));
        // The known answer of the checksum's standard.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        for cut in 0..line.len() {
            assert_eq!(unseal(&line[..cut]), None);
        }
    }
}
