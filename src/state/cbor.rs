//! The part of CBOR (RFC 8949) that stored state is written in: integers, byte and text strings,
//! arrays, maps with text keys, booleans, null and 64-bit floats, all of known length. Pure.
//!
//! Ours and not a crate's: it is these lines, it reads straight from the stored bytes, and it
//! knows one type of values, JSON's, whose numbers come back as they were.

use serde_json::{Map, Number, Value};

/// Deepest nesting, written or read. A document around a record adds a few levels, and JSON is not
/// read beyond 128.
const DEPTH_MAX: u32 = 120;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;
/// How the eight bytes of a float are announced.
const FLOAT: u8 = SIMPLE << 5 | 27;

const SHORT: &str = "it is cut short";
const UNEXPECTED: &str = "it holds something else than expected";

/// Why bytes cannot be read, in words.
pub(super) type Reason = &'static str;

/// Bytes being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    fn head(&mut self, major: u8, number: u64) {
        let first = major << 5;
        let bytes = number.to_be_bytes();
        // The shortest form that holds the number.
        match number {
            0..24 => self.bytes.push(first | bytes[7]),
            24..=0xff => self.bytes.extend([first | 24, bytes[7]]),
            0x100..=0xffff => {
                self.bytes.push(first | 25);
                self.bytes.extend(&bytes[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.bytes.push(first | 26);
                self.bytes.extend(&bytes[4..]);
            }
            _ => {
                self.bytes.push(first | 27);
                self.bytes.extend(bytes);
            }
        }
    }

    pub(super) fn tag(&mut self, number: u64) {
        self.head(TAG, number);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.head(UNSIGNED, number);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(super) fn array(&mut self, length: usize) {
        self.head(ARRAY, length as u64);
    }

    pub(super) fn map(&mut self, length: usize) {
        self.head(MAP, length as u64);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.head(SIMPLE, if flag { TRUE } else { FALSE });
    }

    pub(super) fn object(&mut self, object: &Map<String, Value>) {
        self.map(object.len());
        for (key, value) in object {
            self.text(key);
            self.value(value);
        }
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.head(SIMPLE, NULL),
            Value::Bool(flag) => self.flag(*flag),
            Value::Number(number) => self.json_number(number),
            Value::String(text) => self.text(text),
            Value::Array(values) => {
                self.array(values.len());
                for value in values {
                    self.value(value);
                }
            }
            Value::Object(object) => self.object(object),
        }
    }

    fn json_number(&mut self, number: &Number) {
        if let Some(number) = number.as_u64() {
            self.head(UNSIGNED, number);
        } else if let Some(number) = number.as_i64() {
            // -1 is written as 0, -2 as 1: the complement.
            self.head(NEGATIVE, !number.cast_unsigned());
        } else {
            self.bytes.push(FLOAT);
            let float = number.as_f64().unwrap_or_default();
            self.bytes.extend(float.to_be_bytes());
        }
    }
}

/// Bytes being read.
#[derive(Clone, Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
    depth: u32,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self {
            rest: bytes,
            depth: 0,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], Reason> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Major type and argument of the next item; a float's bits are its argument.
    fn head(&mut self) -> Result<(u8, u8, u64), Reason> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        let (major, information) = (first >> 5, first & 31);
        let length = match information {
            0..24 => return Ok((major, information, u64::from(information))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err("it has a part of unknown length"),
        };
        let number = self
            .take(length)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok((major, information, number))
    }

    fn expect(&mut self, expected: u8) -> Result<u64, Reason> {
        match self.head()? {
            (major, _, number) if major == expected => Ok(number),
            _ => Err(UNEXPECTED),
        }
    }

    #[cfg(test)]
    pub(super) fn tag(&mut self) -> Result<u64, Reason> {
        self.expect(TAG)
    }

    pub(super) fn number(&mut self) -> Result<u64, Reason> {
        self.expect(UNSIGNED)
    }

    pub(super) fn bytes(&mut self) -> Result<&'b [u8], Reason> {
        let length = self.expect(BYTES)?;
        self.take(usize::try_from(length).map_err(|_| SHORT)?)
    }

    pub(super) fn text(&mut self) -> Result<&'b str, Reason> {
        let length = self.expect(TEXT)?;
        self.text_of(length)
    }

    fn text_of(&mut self, length: u64) -> Result<&'b str, Reason> {
        let bytes = self.take(usize::try_from(length).map_err(|_| SHORT)?)?;
        std::str::from_utf8(bytes).map_err(|_| "it holds text that is not UTF-8")
    }

    /// Length of an array. Each item has at least one byte, so no length is believed beyond that.
    pub(super) fn array(&mut self) -> Result<usize, Reason> {
        let length = self.expect(ARRAY)?;
        self.counted(length)
    }

    /// Number of pairs of a map.
    pub(super) fn map(&mut self) -> Result<usize, Reason> {
        let length = self.expect(MAP)?;
        self.counted(length)
    }

    fn counted(&self, length: u64) -> Result<usize, Reason> {
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            _ => Err(SHORT),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, Reason> {
        match self.value()? {
            Value::Bool(flag) => Ok(flag),
            _ => Err(UNEXPECTED),
        }
    }

    pub(super) fn object(&mut self) -> Result<Map<String, Value>, Reason> {
        match self.value()? {
            Value::Object(object) => Ok(object),
            _ => Err(UNEXPECTED),
        }
    }

    pub(super) fn value(&mut self) -> Result<Value, Reason> {
        let (major, information, number) = self.head()?;
        Ok(match major {
            UNSIGNED => Value::from(number),
            NEGATIVE => match i64::try_from(number) {
                Ok(number) => Value::from(!number),
                Err(_) => return Err("it holds a number that is too small"),
            },
            TEXT => Value::from(self.text_of(number)?),
            ARRAY => {
                let length = self.counted(number)?;
                self.deeper()?;
                let mut values = Vec::with_capacity(length);
                for _ in 0..length {
                    values.push(self.value()?);
                }
                self.depth -= 1;
                Value::Array(values)
            }
            MAP => {
                let length = self.counted(number)?;
                self.deeper()?;
                let mut object = Map::new();
                for _ in 0..length {
                    let key = self.text()?;
                    if object.insert(key.to_owned(), self.value()?).is_some() {
                        return Err("it holds a key twice");
                    }
                }
                self.depth -= 1;
                Value::Object(object)
            }
            SIMPLE if information == 27 => {
                let float = Number::from_f64(f64::from_bits(number));
                Value::Number(float.ok_or("it holds a number that is not finite")?)
            }
            SIMPLE if number == FALSE => Value::Bool(false),
            SIMPLE if number == TRUE => Value::Bool(true),
            SIMPLE if number == NULL => Value::Null,
            _ => return Err(UNEXPECTED),
        })
    }

    fn deeper(&mut self) -> Result<(), Reason> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deep");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::random::encode_hex;

    fn written(value: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.value(value);
        writer.bytes
    }

    fn read(bytes: &[u8]) -> Result<Value, Reason> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        if reader.is_at_end() {
            Ok(value)
        } else {
            Err("more follows")
        }
    }

    /// From appendix A of RFC 8949; floats there are written shorter than ours.
    #[test]
    fn the_examples_of_the_standard_are_written_so() {
        for (value, hex) in [
            (json!(0), "00"),
            (json!(23), "17"),
            (json!(24), "1818"),
            (json!(100), "1864"),
            (json!(1000), "1903e8"),
            (json!(1_000_000), "1a000f4240"),
            (json!(1_000_000_000_000_u64), "1b000000e8d4a51000"),
            (json!(18_446_744_073_709_551_615_u64), "1bffffffffffffffff"),
            (json!(-1), "20"),
            (json!(-10), "29"),
            (json!(-100), "3863"),
            (json!(-1000), "3903e7"),
            (json!(1.1), "fb3ff199999999999a"),
            (json!(1.0e300), "fb7e37e43c8800759c"),
            (json!(-4.1), "fbc010666666666666"),
            (json!(false), "f4"),
            (json!(true), "f5"),
            (json!(null), "f6"),
            (json!(""), "60"),
            (json!("IETF"), "6449455446"),
            (json!("\u{fc}"), "62c3bc"),
            (json!("\u{10151}"), "64f0908591"),
            (json!([]), "80"),
            (json!([1, [2, 3], [4, 5]]), "8301820203820405"),
            (json!({}), "a0"),
            (json!({"a": 1, "b": [2, 3]}), "a26161016162820203"),
        ] {
            let bytes = written(&value);
            assert_eq!(encode_hex(&bytes), hex, "{value}");
            assert_eq!(read(&bytes), Ok(value));
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no others", |float| float.is_finite())
                .prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,9}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_value_comes_back_with_its_text(value in any_value()) {
            let back = read(&written(&value)).unwrap();
            prop_assert_eq!(back.to_string(), value.to_string());
            prop_assert_eq!(back, value);
        }

        #[test]
        fn no_bytes_are_too_wild(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes));
        }
    }

    #[test]
    fn what_announces_too_much_is_refused_before_it_costs_anything() {
        for wild in [
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255][..],
            &[0xbb, 0, 0, 0, 255, 255, 255, 255, 255],
            &[0x7b, 127, 255, 255, 255, 255, 255, 255, 255],
            &[0x9f, 1, 0xff],
            &[0xf9, 0x3c, 0],
            &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0],
            &[0xa2, 0x61, 0x61, 1, 0x61, 0x61, 1],
            &[0x61, 0xff],
        ] {
            assert!(read(wild).is_err(), "{wild:?}");
        }
        assert!(read(&[0x81; 100_000]).is_err());
    }
}
