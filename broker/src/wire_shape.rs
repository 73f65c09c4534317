//! Checks a request's lengths before it is decoded.
//!
//! The codec reserves memory for as many elements as an array announces. A request whose lengths
//! lie is refused here first, so that what a request makes the broker allocate stays in proportion
//! to the bytes that were really sent:
//!
//! - no array announces more elements than the bytes that follow could hold;
//! - no string, byte field or tagged field reaches beyond the end of the request;
//! - a tagged field is exactly as long as it says;
//! - a request has at most [`MAX_ELEMENTS`] array elements and tagged fields altogether (an element
//!   of two bytes on the wire takes up to a hundred in memory).
//!
//! The walk allocates nothing. It does not look at values: that is left to the codec and the handlers.

use kafka_protocol::messages::ApiKey;

#[path = "wire_shapes.rs"]
mod table;

/// The most array elements and tagged fields of one request.
pub const MAX_ELEMENTS: usize = 250_000;

/// What stands where a struct would, if it is null: -1.
const NULL_STRUCT: u8 = 0xff;

/// What a field is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    /// A string, null or not; compact in flexible versions.
    Str,
    /// Bytes or records, null or not; compact in flexible versions.
    Blob,
    /// An array, null or not; compact in flexible versions.
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// A struct after a byte that says whether it is there: -1 where it is null.
    NullableStruct(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name: &'static str,
    kind: Kind,
    since: i16,
    until: i16,
    /// Where the field travels among the tagged ones.
    tag: Option<u32>,
}

const fn field(name: &'static str, kind: Kind, since: i16, until: i16) -> Field {
    Field {
        name,
        kind,
        since,
        until,
        tag: None,
    }
}

const fn tagged(tag: u32, name: &'static str, kind: Kind, since: i16, until: i16) -> Field {
    Field {
        name,
        kind,
        since,
        until,
        tag: Some(tag),
    }
}

/// A request's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    api: ApiKey,
    versions: (i16, i16),
    /// The first version with compact lengths and tagged fields.
    flexible_from: i16,
    fields: &'static [Field],
}

/// Why a request is refused before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No such request is known here.
    #[error("{0:?} v{1} is not served")]
    Unknown(ApiKey, i16),
    /// The request ends inside a field.
    #[error("{api:?} v{version}: the request ends in field {field}")]
    Ends {
        /// The API.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The field.
        field: &'static str,
    },
    /// A length that the rest of the request can't hold.
    #[error(
        "{api:?} v{version}: field {field} announces {value} {unit}, but {left} bytes are left"
    )]
    Length {
        /// The API.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The field.
        field: &'static str,
        /// What it announces.
        value: i64,
        /// Of what.
        unit: &'static str,
        /// The bytes that follow it.
        left: usize,
    },
    /// More elements than a request may have.
    #[error(
        "{api:?} v{version}: field {field} brings the request to {value} elements, at most {MAX_ELEMENTS} are served"
    )]
    Elements {
        /// The API.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The field.
        field: &'static str,
        /// How many there are with this field.
        value: usize,
    },
    /// A tagged field whose content is shorter than it says.
    #[error("{api:?} v{version}: tagged field {field} has {value} bytes more than its content")]
    TagSize {
        /// The API.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The field.
        field: &'static str,
        /// The bytes too many.
        value: usize,
    },
}

/// What a request body has that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Array elements and tagged fields.
    pub elements: usize,
    /// Bytes that follow the last field: there should be none, but Kafka ignores them and librdkafka
    /// 2.16 sends three with Metadata v13.
    pub trailing_bytes: usize,
}

/// Refuses a request body whose lengths lie; see the module's header.
pub fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<Checked, ShapeError> {
    let shape = table::SHAPES
        .iter()
        .find(|shape| shape.api == api)
        .filter(|shape| (shape.versions.0..=shape.versions.1).contains(&version))
        .ok_or(ShapeError::Unknown(api, version))?;
    let mut walk = Walk {
        api,
        version,
        flexible: version >= shape.flexible_from,
        rest: body,
        elements: 0,
    };
    walk.fields(shape.fields)?;
    Ok(Checked {
        elements: walk.elements,
        trailing_bytes: walk.rest.len(),
    })
}

struct Walk<'a> {
    api: ApiKey,
    version: i16,
    flexible: bool,
    rest: &'a [u8],
    elements: usize,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        for field in fields {
            if field.tag.is_none() && self.has(field) {
                self.value(field.name, field.kind)?;
            }
        }
        if self.flexible {
            self.tagged_fields(fields)
        } else {
            Ok(())
        }
    }

    fn has(&self, field: &Field) -> bool {
        (field.since..=field.until).contains(&self.version)
    }

    fn value(&mut self, name: &'static str, kind: Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Bool | Kind::Int8 => self.take(name, 1).map(drop),
            Kind::Int16 => self.take(name, 2).map(drop),
            Kind::Int32 => self.take(name, 4).map(drop),
            Kind::Int64 => self.take(name, 8).map(drop),
            Kind::Uuid => self.take(name, 16).map(drop),
            Kind::Str => {
                let len = if self.flexible {
                    self.compact_len(name)?
                } else {
                    self.i16(name)?
                };
                self.skip(name, len)
            }
            Kind::Blob => {
                let len = if self.flexible {
                    self.compact_len(name)?
                } else {
                    self.i32(name)?
                };
                self.skip(name, len)
            }
            Kind::Array(element) => self.array(name, *element),
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullableStruct(fields) => match self.take(name, 1)? {
                [NULL_STRUCT] => Ok(()),
                _ => self.fields(fields),
            },
        }
    }

    fn array(&mut self, name: &'static str, element: Kind) -> Result<(), ShapeError> {
        let len = if self.flexible {
            self.compact_len(name)?
        } else {
            self.i32(name)?
        };
        let count = match usize::try_from(len) {
            Ok(count) => count,
            Err(_) if len == -1 => return Ok(()),
            Err(_) => return Err(self.lies(name, len, "elements")),
        };
        if count.saturating_mul(self.least(element)) > self.rest.len() {
            return Err(self.lies(name, len, "elements"));
        }
        self.count(name, count)?;
        for _ in 0..count {
            self.value(name, element)?;
        }
        Ok(())
    }

    /// The fewest bytes that a value takes.
    fn least(&self, kind: Kind) -> usize {
        match kind {
            Kind::Bool | Kind::Int8 | Kind::NullableStruct(_) => 1,
            Kind::Int16 => 2,
            Kind::Int32 => 4,
            Kind::Int64 => 8,
            Kind::Uuid => 16,
            Kind::Str | Kind::Blob | Kind::Array(_) if self.flexible => 1,
            Kind::Str => 2,
            Kind::Blob | Kind::Array(_) => 4,
            Kind::Struct(fields) => {
                let own: usize = fields
                    .iter()
                    .filter(|field| field.tag.is_none() && self.has(field))
                    .map(|field| self.least(field.kind))
                    .sum();
                own + usize::from(self.flexible)
            }
        }
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        const NAME: &str = "tagged fields";
        let count = self.varint(NAME)? as usize;
        // A tag and a size, one byte each.
        if count.saturating_mul(2) > self.rest.len() {
            return Err(self.lies(NAME, count as i64, "fields"));
        }
        self.count(NAME, count)?;
        for _ in 0..count {
            let tag = self.varint(NAME)?;
            let size = self.varint(NAME)? as usize;
            let known = fields
                .iter()
                .find(|field| field.tag == Some(tag) && self.has(field));
            let name = known.map_or(NAME, |field| field.name);
            if size > self.rest.len() {
                return Err(self.lies(name, size as i64, "bytes"));
            }
            let (content, after) = self.rest.split_at(size);
            if let Some(field) = known {
                self.rest = content;
                self.value(field.name, field.kind)?;
                let value = self.rest.len();
                if value > 0 {
                    let (api, version) = (self.api, self.version);
                    return Err(ShapeError::TagSize {
                        api,
                        version,
                        field: name,
                        value,
                    });
                }
            }
            self.rest = after;
        }
        Ok(())
    }

    fn count(&mut self, field: &'static str, more: usize) -> Result<(), ShapeError> {
        self.elements = self.elements.saturating_add(more);
        if self.elements > MAX_ELEMENTS {
            let (api, version, value) = (self.api, self.version, self.elements);
            return Err(ShapeError::Elements {
                api,
                version,
                field,
                value,
            });
        }
        Ok(())
    }

    fn skip(&mut self, name: &'static str, len: i64) -> Result<(), ShapeError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => self.take(name, len).map(drop),
            Err(_) if len == -1 => Ok(()),
            _ => Err(self.lies(name, len, "bytes")),
        }
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], ShapeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ShapeError::Ends {
            api: self.api,
            version: self.version,
            field,
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn i16(&mut self, name: &'static str) -> Result<i64, ShapeError> {
        let bytes = self.take(name, 2)?;
        Ok(bytes.try_into().map_or(0, i16::from_be_bytes).into())
    }

    fn i32(&mut self, name: &'static str) -> Result<i64, ShapeError> {
        let bytes = self.take(name, 4)?;
        Ok(bytes.try_into().map_or(0, i32::from_be_bytes).into())
    }

    /// A compact length: one more than it says, 0 for null, which is -1 here.
    fn compact_len(&mut self, name: &'static str) -> Result<i64, ShapeError> {
        Ok(i64::from(self.varint(name)?) - 1)
    }

    fn varint(&mut self, name: &'static str) -> Result<u32, ShapeError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(name, 1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| self.lies(name, value as i64, "bytes"));
            }
        }
        Err(self.lies(name, value as i64, "bytes"))
    }

    fn lies(&self, field: &'static str, value: i64, unit: &'static str) -> ShapeError {
        let (api, version, left) = (self.api, self.version, self.rest.len());
        ShapeError::Length {
            api,
            version,
            field,
            value,
            unit,
            left,
        }
    }
}

#[cfg(test)]
#[path = "wire_shape_tests.rs"]
mod tests;
