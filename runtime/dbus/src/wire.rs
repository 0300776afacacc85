//! Messages of D-Bus (dbus.freedesktop.org/doc/dbus-specification.html, "Message Protocol"): values, their encoding, and
//! what is read back. Little-endian, which every peer takes.

/// A value, by its signature.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`.
    Byte(u8),
    /// `b`.
    Bool(bool),
    /// `n`.
    Int16(i16),
    /// `q`.
    Uint16(u16),
    /// `i`.
    Int32(i32),
    /// `u`.
    Uint32(u32),
    /// `x`.
    Int64(i64),
    /// `t`.
    Uint64(u64),
    /// `d`.
    Double(f64),
    /// `s`.
    Text(String),
    /// `o`.
    Path(String),
    /// `g`.
    Signature(String),
    /// The elements' signature, and the elements.
    Array(String, Vec<Value>),
    /// `(…)`.
    Struct(Vec<Value>),
    /// `v`.
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The value in a variant.
    #[must_use]
    pub fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// The text, of a path and of a variant too.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }

    /// The signature of its type.
    #[must_use]
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => {
                format!("({})", fields.iter().map(Self::signature).collect::<String>())
            }
            Self::Variant(_) => "v".into(),
        }
    }

    /// Appends the encoding; alignment counts from the start of `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        align(out, alignment(self.signature().as_bytes()[0]));
        match self {
            Self::Byte(value) => out.push(*value),
            Self::Bool(value) => out.extend(u32::from(*value).to_le_bytes()),
            Self::Int16(value) => out.extend(value.to_le_bytes()),
            Self::Uint16(value) => out.extend(value.to_le_bytes()),
            Self::Int32(value) => out.extend(value.to_le_bytes()),
            Self::Uint32(value) => out.extend(value.to_le_bytes()),
            Self::Int64(value) => out.extend(value.to_le_bytes()),
            Self::Uint64(value) => out.extend(value.to_le_bytes()),
            Self::Double(value) => out.extend(value.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                out.extend(length(text.len()).to_le_bytes());
                out.extend(text.bytes().chain([0]));
            }
            Self::Signature(text) => encode_signature(text, out),
            Self::Array(element, items) => {
                let at = out.len();
                out.extend([0; 4]);
                align(out, alignment(element.as_bytes()[0]));
                let start = out.len();
                items.iter().for_each(|item| item.encode(out));
                let size = length(out.len() - start).to_le_bytes();
                out[at..at + 4].copy_from_slice(&size);
            }
            Self::Struct(fields) => fields.iter().for_each(|field| field.encode(out)),
            Self::Variant(inner) => {
                encode_signature(&inner.signature(), out);
                inner.encode(out);
            }
        }
    }
}

fn encode_signature(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("our signatures are short"));
    out.extend(text.bytes().chain([0]));
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("our messages are small")
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// A method call.
pub(crate) struct Call<'a> {
    /// The bus name of the peer; none on a direct connection.
    pub(crate) destination: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) arguments: &'a [Value],
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A peer that does not run is not started.
const NO_AUTO_START: u8 = 2;

// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

impl Call<'_> {
    pub(crate) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.arguments.iter().for_each(|argument| argument.encode(&mut body));
        let field =
            |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields = vec![
            field(PATH, Value::Path(self.path.to_owned())),
            field(INTERFACE, Value::text(self.interface)),
            field(MEMBER, Value::text(self.member)),
        ];
        fields.extend(self.destination.map(|name| field(DESTINATION, Value::text(name))));
        if !self.arguments.is_empty() {
            let signature = self.arguments.iter().map(Value::signature).collect();
            fields.push(field(SIGNATURE, Value::Signature(signature)));
        }
        let mut out = vec![b'l', METHOD_CALL, NO_AUTO_START, 1];
        Value::Uint32(length(body.len())).encode(&mut out);
        Value::Uint32(serial).encode(&mut out);
        Value::Array("(yv)".into(), fields).encode(&mut out);
        align(&mut out, 8);
        out.extend(body);
        out
    }
}

/// What a peer said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Reply { serial: u32, body: Vec<Value> },
    Error { serial: u32, name: String, message: String },
    Signal { member: String, body: Vec<Value> },
    Other,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no D-Bus message")]
pub(crate) struct Malformed;

/// Length of the fixed part that tells the length of the whole.
pub(crate) const PREFIX: usize = 16;
/// The specification's limit.
const MAX_MESSAGE: usize = 128 << 20;
/// Containers within containers, as the specification limits them.
const MAX_DEPTH: usize = 32;

/// The length of a message that begins with these [`PREFIX`] bytes.
pub(crate) fn message_length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
    if prefix[0] != b'l' {
        // Our peers run on this machine and answer in its byte order.
        return Err(Malformed);
    }
    let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let (body, fields) = (word(4) as usize, word(12) as usize);
    let total = (PREFIX + fields).next_multiple_of(8) + body;
    if fields > MAX_MESSAGE || body > MAX_MESSAGE || total > MAX_MESSAGE { Err(Malformed) } else { Ok(total) }
}

/// Decodes a whole message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Incoming, Malformed> {
    let mut reader = Reader { bytes, at: 12 };
    let kind = *bytes.get(1).ok_or(Malformed)?;
    let Value::Array(_, fields) = reader.value(&mut b"a(yv)".iter(), 0)? else { return Err(Malformed) };
    let (mut member, mut error, mut serial, mut signature) = (String::new(), String::new(), 0, String::new());
    for field in fields {
        let Value::Struct(parts) = field else { return Err(Malformed) };
        let [Value::Byte(code), Value::Variant(value)] = parts.as_slice() else { return Err(Malformed) };
        match (code, &**value) {
            (&MEMBER, Value::Text(text)) => member.clone_from(text),
            (&ERROR_NAME, Value::Text(text)) => error.clone_from(text),
            (&SIGNATURE, Value::Signature(text)) => signature.clone_from(text),
            (&REPLY_SERIAL, Value::Uint32(number)) => serial = *number,
            _ => {}
        }
    }
    reader.align(8)?;
    let mut body = Vec::new();
    let mut kinds = signature.as_bytes().iter();
    while !kinds.as_slice().is_empty() {
        body.push(reader.value(&mut kinds, 0)?);
    }
    Ok(match kind {
        METHOD_RETURN => Incoming::Reply { serial, body },
        ERROR => {
            let message = body.first().and_then(Value::as_text).unwrap_or_default().to_owned();
            Incoming::Error { serial, name: error, message }
        }
        SIGNAL => Incoming::Signal { member, body },
        _ => Incoming::Other,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() { Err(Malformed) } else { Ok(()) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn string(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Malformed)
    }

    /// Reads one value of the type the signature goes on with.
    fn value(&mut self, kinds: &mut std::slice::Iter<'_, u8>, depth: usize) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        Ok(match kinds.next().ok_or(Malformed)? {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            b'n' => Value::Int16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::Uint16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::Int32(i32::from_le_bytes(self.number()?)),
            b'u' | b'h' => Value::Uint32(u32::from_le_bytes(self.number()?)),
            b'x' => Value::Int64(i64::from_le_bytes(self.number()?)),
            b't' => Value::Uint64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.number()?)),
            b's' => {
                let length = u32::from_le_bytes(self.number()?);
                Value::Text(self.string(length as usize)?)
            }
            b'o' => {
                let length = u32::from_le_bytes(self.number()?);
                Value::Path(self.string(length as usize)?)
            }
            b'g' => {
                let length = self.take(1)?[0];
                Value::Signature(self.string(length.into())?)
            }
            b'v' => {
                let length = self.take(1)?[0];
                let signature = self.string(length.into())?;
                Value::Variant(Box::new(self.value(&mut signature.as_bytes().iter(), depth + 1)?))
            }
            b'a' => {
                let size = u32::from_le_bytes(self.number()?) as usize;
                self.align(alignment(*kinds.as_slice().first().ok_or(Malformed)?))?;
                let end =
                    self.at.checked_add(size).filter(|end| *end <= self.bytes.len()).ok_or(Malformed)?;
                let element = element(kinds)?;
                let mut items = Vec::new();
                while self.at < end {
                    items.push(self.value(&mut element.iter(), depth + 1)?);
                }
                Value::Array(String::from_utf8_lossy(element).into_owned(), items)
            }
            open @ (b'(' | b'{') => {
                self.align(8)?;
                let close = if *open == b'(' { b')' } else { b'}' };
                let mut fields = Vec::new();
                while *kinds.as_slice().first().ok_or(Malformed)? != close {
                    fields.push(self.value(kinds, depth + 1)?);
                }
                kinds.next();
                Value::Struct(fields)
            }
            _ => return Err(Malformed),
        })
    }
}

/// Takes the signature of one complete type.
fn element<'k>(kinds: &mut std::slice::Iter<'k, u8>) -> Result<&'k [u8], Malformed> {
    let all = kinds.as_slice();
    let mut open = 0usize;
    loop {
        match kinds.next().ok_or(Malformed)? {
            b'a' => continue,
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1).ok_or(Malformed)?,
            _ => {}
        }
        if open == 0 {
            return Ok(&all[..all.len() - kinds.as_slice().len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[Value]) -> Vec<u8> {
        let (path, interface, member) = ("/a", "i.f", "M");
        Call { destination: Some("d.e"), path, interface, member, arguments }.encode(7)
    }

    /// Laid out by hand after the specification.
    #[test]
    fn header_is_as_the_specification_has_it() {
        let bytes = call(&[Value::text("x")]);
        let expected = b"l\x01\x02\x01\x06\0\0\0\x07\0\0\0\x45\0\0\0\
            \x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0\
            \x08\x01g\0\x01s\0\0\
            \x01\0\0\0x\0";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&bytes[..12]), hex(&expected[..12]));
        assert_eq!(hex(&bytes[16..]), hex(&expected[16..]));
        assert_eq!(message_length(bytes[..PREFIX].try_into().unwrap()), Ok(bytes.len()));
    }

    #[test]
    fn values_come_back() {
        let values = vec![
            Value::Byte(1),
            Value::Uint64(u64::MAX),
            Value::Array(
                "(sv)".into(),
                vec![
                    Value::Struct(vec![Value::text("a"), Value::Bool(true).variant()]),
                    Value::Struct(vec![
                        Value::text("b"),
                        Value::Array("u".into(), vec![Value::Uint32(9)]).variant(),
                    ]),
                ],
            ),
            Value::Array("(ss)".into(), Vec::new()).variant(),
            Value::Double(0.5),
        ];
        let mut bytes = call(&values);
        bytes[1] = SIGNAL;
        let Incoming::Signal { member, body } = decode(&bytes).unwrap() else { panic!() };
        assert_eq!(member, "M");
        assert_eq!(body, values);
    }

    #[test]
    fn no_cut_message_is_taken_for_a_whole_one() {
        let bytes =
            call(&[Value::Array("s".into(), vec![Value::text("one"), Value::text("two")]), Value::Uint64(1)]);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(Malformed), "{end}");
        }
    }
}
