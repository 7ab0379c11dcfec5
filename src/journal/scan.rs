//! The lines of a file, each proved, or put right where one wrong bit explains it, or left as damage.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::line::closed;
use super::mend;
use super::planted::{Fault, planted};
use super::sealed::{self, Sealed};

/// Longer pieces are not mended: nothing of ours is so long.
const MEND_MAX: usize = 4 * 1024 * 1024;
/// Places looked at where two lines may be glued together.
const GLUED_MAX: usize = 8;

/// How the header of a segment begins. It stands outside of the chain.
pub(super) const SEGMENT_HEADER: &[u8] = b"{\"v\":2,\"seg\":";

/// A stretch of a file.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) offset: usize,
    /// Its bytes in the file, the newline included.
    pub(super) len: usize,
    /// `None`: damage.
    pub(super) good: Option<Good<'a>>,
}

/// A line that proves itself.
#[derive(Debug)]
pub(super) struct Good<'a> {
    /// Without its newline.
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) prev: u32,
    pub(super) crc: u32,
    /// Whether it differs from what is in the file.
    pub(super) mended: bool,
}

impl<'a> Good<'a> {
    fn whole(bytes: &'a [u8]) -> Option<Self> {
        let Sealed { prev, crc, .. } = sealed::unseal(bytes)?;
        Some(Self { bytes: Cow::Borrowed(bytes), prev, crc, mended: false })
    }

    fn mended(bytes: Vec<u8>) -> Option<Self> {
        let Sealed { prev, crc, .. } = sealed::unseal(&bytes)?;
        Some(Self { bytes: Cow::Owned(bytes), prev, crc, mended: true })
    }

    /// Its parts.
    pub(super) fn sealed(&self) -> Sealed<'_> {
        // 36 bytes of `prev` and `crc` end every line that verifies.
        let body = &self.bytes[..self.bytes.len().saturating_sub(2 * sealed::TRAILER)];
        Sealed { body, prev: self.prev, crc: self.crc }
    }

    /// Whether it is the header of a segment.
    pub(super) fn is_header(&self) -> bool {
        self.bytes.starts_with(SEGMENT_HEADER)
    }

    /// The `prev` of the line behind it.
    fn next_prev(&self) -> u32 {
        if self.is_header() { self.prev } else { self.crc }
    }
}

/// Reads the lines of a file. `carry` is the checksum of the line before the file, if it is known.
pub(super) fn scan(data: &[u8], carry: Option<u32>) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    let mut damaged = false;
    let ends = memchr::memchr_iter(b'\n', data).map(|at| at + 1);
    for end in ends.chain((!data.ends_with(b"\n")).then_some(data.len())) {
        let bytes = &data[offset..end];
        if bytes.is_empty() {
            break;
        }
        let good = Good::whole(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        damaged |= good.is_none();
        pieces.push(Piece { offset, len: bytes.len(), good });
        offset += bytes.len();
    }
    if damaged && !planted(Fault::NoMending) {
        let mut at = 0;
        while at < pieces.len() {
            if pieces[at].good.is_none() {
                mend_at(data, &mut pieces, at, carry);
            }
            at += 1;
        }
    }
    pieces
}

/// Tries to put piece `at` right; may split it in two or join it with the next.
fn mend_at<'a>(data: &'a [u8], pieces: &mut Vec<Piece<'a>>, at: usize, carry: Option<u32>) {
    let Piece { offset, len, .. } = pieces[at];
    if len > MEND_MAX {
        return;
    }
    let whole = &data[offset..offset + len];
    let bytes = whole.strip_suffix(b"\n").unwrap_or(whole);
    let before = prev_for(pieces, at, carry);
    let after = |next: usize| pieces.get(next).and_then(|piece| piece.good.as_ref()).map(|good| good.prev);

    let next = after(at + 1);
    let mut candidates = mend::one_bit(bytes).into_iter().filter_map(Good::mended);
    if let Some(good) = candidates.find(|good| fits(good, before, next)) {
        pieces[at].good = Some(good);
        return;
    }
    for split in mend::glued(bytes).take(GLUED_MAX) {
        let Some(mut left) = Good::whole(&bytes[..split]) else { continue };
        left.mended = true;
        let rest = offset + split + 1;
        if split + 1 == whole.len() && fits(&left, before, next) {
            // The last newline of the file.
            pieces[at].good = Some(left);
            return;
        }
        let Some(right) = Good::whole(&bytes[split + 1..]) else { continue };
        if fits(&left, before, Some(right.prev)) && fits(&right, Some(left.next_prev()), next) {
            let right = Piece { offset: rest, len: offset + len - rest, good: Some(right) };
            pieces[at] = Piece { offset, len: split + 1, good: Some(left) };
            pieces.insert(at + 1, right);
            return;
        }
    }
    let Some(second) = pieces.get(at + 1).filter(|second| second.good.is_none() && second.len <= MEND_MAX)
    else {
        return;
    };
    let right = &data[second.offset..second.offset + second.len];
    let next = after(at + 2);
    let mut candidates =
        mend::joined(bytes, right.strip_suffix(b"\n").unwrap_or(right)).into_iter().filter_map(Good::mended);
    if let Some(good) = candidates.find(|good| fits(good, before, next)) {
        let len = len + second.len;
        pieces[at] = Piece { offset, len, good: Some(good) };
        pieces.remove(at + 1);
    }
}

/// What the `prev` of piece `at` has to be, if that is known.
fn prev_for(pieces: &[Piece<'_>], at: usize, carry: Option<u32>) -> Option<u32> {
    match at.checked_sub(1).map(|before| &pieces[before].good) {
        None => carry,
        Some(Some(good)) => Some(good.next_prev()),
        // Only the header may be missing without breaking the chain.
        Some(None) => carry.filter(|_| at == 1),
    }
}

/// Whether a candidate belongs between its neighbours.
fn fits(good: &Good<'_>, before: Option<u32>, next: Option<u32>) -> bool {
    before.is_none_or(|prev| prev == good.prev)
        && next.is_none_or(|prev| prev == good.next_prev())
        && serde_json::from_slice::<IgnoredAny>(&closed(good.sealed().body)).is_ok()
}
