//! Length-prefixed JSON: four bytes of little-endian length, then that many bytes of JSON.
//!
//! Only buffers here, no I/O: the keeper reads without blocking, the supervisor with tokio, both feed a
//! [`Decoder`].

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame in bytes. A launch carries arguments and environment, which the kernel itself limits to
/// a few MiB; an inventory of ten thousand runs stays below 10 MiB.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix exceeds [`MAX_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The content is not what was expected.
    #[error("a frame cannot be read")]
    Json(#[source] serde_json::Error),
}

/// Appends a message as one frame.
pub fn encode<T: Serialize>(message: &T, into: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *into, message).map_err(FrameError::Json)?;
    let length = into.len() - start - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_BYTES);
    let Some(prefix) = prefix else {
        into.truncate(start);
        return Err(FrameError::TooLong(length));
    };
    into[start..start + 4].copy_from_slice(&prefix.to_le_bytes());
    Ok(())
}

/// Collects bytes and gives messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Takes bytes as they arrive.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, if there is one. After an error the stream is out of step: close it.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = &self.buffer[self.consumed..];
        let Some((prefix, rest)) = waiting.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(FrameError::Json)?;
        self.consumed += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cutting() {
        let mut bytes = Vec::new();
        encode(&"one", &mut bytes).unwrap();
        encode(&"two", &mut bytes).unwrap();
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut got: Vec<String> = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(message) = decoder.take().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, ["one", "two"], "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        let mut decoder = Decoder::default();
        decoder.feed(b"GET / HTTP/1.1\r\n\r\n");
        assert!(matches!(decoder.take::<String>(), Err(FrameError::TooLong(_))));
        let mut decoder = Decoder::default();
        decoder.feed(&[3, 0, 0, 0, b'{', b'{', b'{']);
        assert!(matches!(decoder.take::<String>(), Err(FrameError::Json(_))));
    }
}
