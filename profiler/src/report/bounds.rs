//! Small files that would become much, and large ones that are what they seem. Messages are written by hand: what
//! encodes them would take the memory itself.

use super::{
    LONG_TEXT, MALFORMED_SAMPLE, ReadError, TEXT_MAX, WEIGHT_EACH, WEIGHT_MAX, folded, read,
};
use crate::profile::Profile;

/// Appends a number.
fn number(bytes: &mut Vec<u8>, mut value: usize) {
    let low = |value: usize| u8::try_from(value & 0x7f).unwrap();
    while value > 0x7f {
        bytes.push(low(value) | 0x80);
        value >>= 7;
    }
    bytes.push(low(value));
}

/// Appends a field that is a message or a text.
fn field(bytes: &mut Vec<u8>, tag: u8, content: &[u8]) {
    bytes.push(tag << 3 | 2);
    number(bytes, content.len());
    bytes.extend(content);
}

/// Numbers as one field.
fn packed(tag: u8, values: &[usize]) -> Vec<u8> {
    let mut content = Vec::new();
    for value in values {
        number(&mut content, *value);
    }
    let mut bytes = Vec::new();
    field(&mut bytes, tag, &content);
    bytes
}

/// Fields that are numbers each.
fn message(values: &[(u8, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, value) in values {
        bytes.push(tag << 3);
        number(&mut bytes, *value);
    }
    bytes
}

/// A profile of functions of these names, each at a location of its own, without samples.
fn functions(names: impl Iterator<Item = String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, 1, &message(&[(1, 0)]));
    field(&mut bytes, 6, b"");
    for (index, name) in names.enumerate() {
        let id = index + 1;
        field(&mut bytes, 6, name.as_bytes());
        field(&mut bytes, 5, &message(&[(1, id), (2, id)]));
        let mut location = message(&[(1, id)]);
        field(&mut location, 4, &message(&[(1, id)]));
        field(&mut bytes, 4, &location);
    }
    bytes
}

/// Adds a sample of a stack.
fn sample(bytes: &mut Vec<u8>, locations: &[usize]) {
    let content = [packed(1, locations), packed(2, &[1])].concat();
    field(bytes, 2, &content);
}

fn refusal(bytes: &[u8]) -> ReadError {
    let error = read(bytes).expect_err("it is refused");
    assert!(error.hint().is_some(), "{error}");
    error
}

/// Tables with more entries than any program has are refused before they are filled.
#[test]
fn tables_are_counted() {
    let mut strings = functions(std::iter::empty());
    strings.extend(b"\x32\0".repeat(1 << 22));
    assert!(matches!(
        refusal(&strings),
        ReadError::TooMany {
            what: "strings",
            ..
        }
    ));
    let mut comments = functions(std::iter::empty());
    field(&mut comments, 13, &vec![0; 1 << 20]);
    assert!(matches!(
        refusal(&comments),
        ReadError::TooMany {
            what: "comments",
            ..
        }
    ));
    assert!(matches!(
        refusal("# x\na 1\n".repeat(1 << 17).as_bytes()),
        ReadError::TooMany { .. }
    ));
}

/// A sample, or a location, that consists of empty messages is malformed, whatever it would take.
#[test]
fn pieces_are_bounded() {
    let mut bytes = functions(["main".to_owned()].into_iter());
    sample(&mut bytes, &[1]);
    // Labels, lines, and locations of a stack.
    field(&mut bytes, 2, &b"\x1a\0".repeat(1 << 20));
    field(
        &mut bytes,
        4,
        &[message(&[(1, 7)]), b"\x22\0".repeat(1000)].concat(),
    );
    sample(&mut bytes, &[7]);
    sample(&mut bytes, &vec![1; (1 << 16) + 1]);
    let profile = read(&bytes).unwrap();
    assert_eq!(
        (profile.total(), profile.account.notes[MALFORMED_SAMPLE]),
        (1, 3)
    );
}

/// A long name that recurs is little to say and much to draw: stacks of it are malformed, and many are refused.
#[test]
fn recurring_names_are_bounded() {
    let name = || ["x".repeat(2 * TEXT_MAX)].into_iter();
    let mut one = functions(name());
    sample(&mut one, &[1]);
    sample(&mut one, &[1; 100]);
    let profile = read(&one).unwrap();
    assert_eq!(profile.locations[0].frames[0].name.len(), TEXT_MAX);
    assert_eq!(profile.account.notes[LONG_TEXT], 1);
    assert_eq!(
        (profile.total(), profile.account.notes[MALFORMED_SAMPLE]),
        (1, 1)
    );
    let mut many = functions(name());
    for length in 1..60 {
        sample(&mut many, &vec![1; length]);
    }
    assert!(matches!(refusal(&many), ReadError::TooHeavy { .. }));
    let frame = format!(";{}", name().next().unwrap());
    let lines: Vec<String> = (1..60)
        .map(|length| format!("p{} 1\n", frame.repeat(length)))
        .collect();
    let profile = read(lines.concat().as_bytes());
    assert!(matches!(profile, Err(ReadError::TooHeavy { .. })));
}

/// Many little stacks become more than they are, up to a limit.
#[test]
fn little_stacks_are_weighed() {
    let lines: Vec<String> = (0..10_000)
        .map(|stack| format!("p;{stack:x} 1\n"))
        .collect();
    let text = lines.concat();
    let limit = 1 << 20;
    let refused = folded::read(&text, limit);
    assert!(matches!(refused, Err(ReadError::TooHeavy { limit: told }) if told == limit));
    assert_eq!(read(text.as_bytes()).unwrap().total(), 10_000);
}

/// What a recorder writes of a large program stays far below the limits: 4 MB here, fifty times as much by the same rule.
#[test]
fn large_recordings_are_read() {
    let names = (0..4_000)
        .map(|index| format!("namespace_{index}::a_function_with_a_name_of_some_length<{index}>"));
    let mut bytes = functions(names);
    let mut random = 1_u64;
    let mut samples = 0;
    while bytes.len() < 4 << 20 {
        let stack: Vec<usize> = (0..40)
            .map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (random >> 33) as usize % 4_000 + 1
            })
            .collect();
        sample(&mut bytes, &stack);
        samples += 1;
    }
    let profile: Profile = read(&bytes).unwrap();
    assert_eq!(profile.total(), samples);
    let weighed = super::builder::weight_of(&profile);
    assert!(
        weighed < bytes.len() * WEIGHT_EACH && 50 * weighed < WEIGHT_MAX,
        "{weighed}"
    );
}
