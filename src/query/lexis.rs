//! What SQL texts are read by where no tree is wanted: quotes, comments, words.

/// The length of what begins with a quote, its end included; a doubled quote is part of it. None where it does not end.
pub(super) fn quoted(text: &[u8]) -> Option<usize> {
    let quote = text.first()?;
    let mut at = 1;
    loop {
        at += text[at..].iter().position(|byte| byte == quote)? + 1;
        if text.get(at) != Some(quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// How many bytes belong together from the first on.
pub(super) fn run(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !belongs(*byte)).unwrap_or(text.len())
}

/// The length of a `--` comment, without the end of its line.
pub(super) fn comment(text: &[u8]) -> usize {
    run(text, |byte| byte != b'\n')
}

/// Letters of any language: what is not ASCII may be one.
pub(super) fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Letters and digits.
pub(super) fn is_word(byte: u8) -> bool {
    is_letter(byte) || byte.is_ascii_digit()
}
