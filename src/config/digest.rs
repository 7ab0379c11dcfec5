//! A fingerprint of what was read, to see that a file has changed. It guards against nothing but oversight.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// 64-bit FNV-1a over path, length and text of each file, in hexadecimal.
pub(super) fn of(files: &[(PathBuf, &str)]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (path, text) in files {
        eat(path.as_os_str().as_bytes());
        eat(text.as_bytes());
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_with_text_path_and_border() {
        let digest = |files: &[(&str, &'static str)]| -> String {
            of(&files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect::<Vec<_>>())
        };
        let all = [
            digest(&[]),
            digest(&[("a", "x")]),
            digest(&[("a", "y")]),
            digest(&[("b", "x")]),
            digest(&[("ax", "")]),
            digest(&[("a", "x"), ("", "")]),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // The value is kept by instances that run, so it may not change with a new build.
        assert_eq!(digest(&[]), "cbf29ce484222325");
    }
}
