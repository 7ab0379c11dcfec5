//! Text without allocation, for a child that shares its parent's memory.

/// A line of text in a fixed buffer.
pub(super) struct Line {
    pub(super) bytes: [u8; 192],
    pub(super) len: usize,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 192], len: 0 }
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    pub(super) fn number(&mut self, mut number: u64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

/// Field 22 of `/proc/self/stat`, without allocation; 0 if it cannot be read.
pub(super) fn own_start_ticks() -> u64 {
    let mut buffer = [0_u8; 1024];
    // SAFETY: reads into local memory.
    let length = unsafe {
        let fd = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return 0;
        }
        let length = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        usize::try_from(length).unwrap_or(0)
    };
    let text = &buffer[..length.min(buffer.len())];
    let Some(end) = text.iter().rposition(|b| *b == b')') else { return 0 };
    let field = text[end..].split(|b| *b == b' ').nth(20).unwrap_or_default();
    field.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit.wrapping_sub(b'0')))
}
