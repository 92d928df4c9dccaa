//! Rust read as text: comments and literals blanked, functions and tests found.

pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

pub(super) fn line(text: &str, number: usize) -> &str {
    text.lines().nth(number - 1).unwrap_or_default()
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !word_before => raw_string(rest),
            // `br"..."`, `cr#"..."#`; the letter itself is code.
            'b' | 'c' if !word_before && raw_string(&rest[1..]) > 0 => 1 + raw_string(&rest[1..]),
            '\'' => character(rest),
            _ => 0,
        };
        let taken = if skipped > 0 { skipped } else { next.len_utf8() };
        let (done, after) = rest.split_at(taken);
        if skipped > 0 {
            code.extend(done.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(next);
        }
        rest = after;
    }
    code
}

/// Bytes of the comment, with those inside it.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the string that begins here.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the raw string that begins here; none, if none does.
fn raw_string(text: &str) -> usize {
    let Some(after) = text.strip_prefix('r') else { return 0 };
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    let Some(inside) = after[hashes..].strip_prefix('"') else { return 0 };
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    2 + hashes + length
}

/// Bytes of the character literal that begins here; none, if it is a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    let Some((_, first)) = characters.next() else { return 0 };
    if first == '\\' {
        let escape = text.char_indices().skip(3).find(|(_, c)| *c == '\'');
        return escape.map_or(0, |(at, _)| at + 1);
    }
    characters.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
}

/// Name, first and last line of every function with a body.
pub(super) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let line_of = |at: usize| code[..at].bytes().filter(|byte| *byte == b'\n').count() + 1;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if begins_word || name.is_empty() {
            continue;
        }
        if let Some(end) = item_end(&code[at..]).filter(|(_, braced)| *braced) {
            found.push((name, line_of(at), line_of(at + end.0)));
        }
    }
    found
}

/// Where the item ends that begins here, and whether it ends with a brace.
fn item_end(code: &str) -> Option<(usize, bool)> {
    let (mut brackets, mut braces) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.checked_sub(1)?,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some((at, true));
                }
            }
            b';' if braces == 0 && brackets == 0 => return Some((at, false)),
            _ => {}
        }
    }
    None
}

/// The code without what is compiled for tests alone.
pub(super) fn untested(text: &str) -> String {
    let mut code = code(text);
    let marker = "#[cfg(test)]";
    while let Some(at) = code.find(marker) {
        let item = at + marker.len();
        let end = item_end(&code[item..]).map_or(code.len(), |(end, _)| item + end + 1);
        let blank: String =
            code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..end, &blank);
    }
    code
}

#[test]
fn the_scanner_tells_code_from_comments_literals_and_tests() {
    let text = "fn a() { /* fn b() { */ let c = '{'; let s = \"}\\\"{\"; } // {\n\
                fn d<'a>(x: [u8; 2], y: &'a str)\n{\n    r#\"} \" {\"#;\n}\n\
                #[cfg(test)]\nmod tests {\n    fn e() { x.unwrap() }\n}\nfn f() {}\n";
    let found = functions(&code(text));
    let found: Vec<_> = found.iter().map(|(name, a, b)| (name.as_str(), *a, *b)).collect();
    assert_eq!(found, [("a", 1, 1), ("d", 2, 5), ("e", 8, 8), ("f", 10, 10)]);
    let outside = untested(text);
    assert!(!outside.contains("unwrap") && outside.contains("fn f"), "{outside}");
    assert_eq!(outside.lines().count(), text.lines().count());
}
