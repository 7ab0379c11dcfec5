//! Putting a single wrong bit right.
//!
//! The checksum is linear: a flipped bit changes it by a value that depends only on which bit it is and
//! how far it is from the end. So one pass over a line tells which bit explains the difference between
//! the stored checksum and the right one. A flip may also make two lines out of one, or one out of two,
//! where it hits a newline or makes one. Whether a candidate is believed, its neighbours decide.

use super::sealed;

/// The checksum's polynomial, bits in the order in which they leave the shift register.
const POLY: u32 = 0x82f6_3b78;

/// How the checksum's register changes when a zero byte passes, by its low byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let mut n = i as u32;
        let mut bit = 0;
        while bit < 8 {
            n = if n & 1 == 1 { n >> 1 ^ POLY } else { n >> 1 };
            bit += 1;
        }
        table[i] = n;
        i += 1;
    }
    table
};

/// All lines that verify and differ from `line` in one bit. Seldom more than one.
pub(super) fn one_bit(line: &[u8]) -> Vec<Vec<u8>> {
    let Some((before, end)) = sealed::split(line) else { return Vec::new() };
    let right = crc32c::crc32c(before);
    let wanted = sealed::trailer(right);
    let off: u32 = end.iter().zip(wanted).map(|(a, b)| (a ^ b).count_ones()).sum();
    let mut found = Vec::new();
    if off == 1 {
        found.push([before, &wanted].concat());
    }
    let Some(stored) = sealed::stored(end) else { return found };
    let difference = stored ^ right;
    let mut marks: [u32; 8] = std::array::from_fn(|bit| TABLE[1 << bit]);
    for at in (0..before.len()).rev() {
        for (bit, mark) in marks.iter_mut().enumerate() {
            if *mark == difference {
                let mut mended = line.to_vec();
                mended[at] ^= 1 << bit;
                found.push(mended);
            }
            *mark = *mark >> 8 ^ TABLE[(*mark & 0xff) as usize];
        }
    }
    found.retain(|line| sealed::unseal(line).is_some() && !line.contains(&b'\n'));
    found
}

/// Where a flipped newline may have glued two lines together: the left one verifies, and the byte is one
/// bit away from a newline.
pub(super) fn glued(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (sealed::TRAILER..bytes.len()).filter(|at| {
        (bytes[*at] ^ b'\n').is_power_of_two()
            && bytes[..*at].ends_with(b"\"}")
            && sealed::unseal(&bytes[..*at]).is_some()
    })
}

/// What two pieces may have been before a flip put a newline between them.
pub(super) fn joined(left: &[u8], right: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = [left, b"\n", right].concat();
    let mut found = Vec::new();
    for bit in 0..8 {
        whole[left.len()] = b'\n' ^ 1 << bit;
        if sealed::unseal(&whole).is_some() {
            found.push(whole.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        let mut out = format!("{{\"text\":\"{text}\"").into_bytes();
        sealed::seal(&mut out, 0, 7);
        out.pop();
        out
    }

    #[test]
    fn every_flipped_bit_of_a_line_is_found() {
        let right = line("a text with a star * in it, and more of it");
        for at in 0..right.len() {
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << bit;
                if wrong[at] == b'\n' {
                    assert_eq!(joined(&wrong[..at], &wrong[at + 1..]), std::slice::from_ref(&right));
                } else {
                    assert_eq!(one_bit(&wrong), std::slice::from_ref(&right), "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_flipped_newline_is_found_and_two_wrong_bits_are_not_mended() {
        let (left, right) = (line("left"), line("right"));
        for bit in 0..8 {
            let bytes = [&left[..], &[b'\n' ^ 1 << bit], &right].concat();
            assert_eq!(glued(&bytes).collect::<Vec<_>>(), [left.len()]);
        }
        let mut wrong = left.clone();
        wrong[3] ^= 1;
        wrong[9] ^= 4;
        assert!(!one_bit(&wrong).contains(&left));
        assert!(one_bit(b"").is_empty() && one_bit(b"short").is_empty());
    }
}
