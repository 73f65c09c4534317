//! What stands in a JSON Schema for the values that are written as texts.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Aggregate, Codec, Inputs};
use crate::expression::{Expression, MAX_BYTES, Template};
use crate::feature::JsonPath;

/// A type whose schema is that of texts, or something near.
macro_rules! schema {
    ($type:ty, $name:literal, $($schema:tt)+) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ $($schema)+ })
            }
        }
    };
}

/// `"10ms"`
pub(super) struct DurationText;
/// `"64MiB"`, or bytes.
pub(super) struct SizeText;

schema! { DurationText, "Duration",
    "description": "A whole number and a unit: us, ms, s, m, h or d; as \"5m\".",
    "type": "string",
    "pattern": "^[0-9]+ *(us|ms|s|m|h|d)$",
}
schema! { SizeText, "Size",
    "description": "As \"64MiB\" or \"1GB\"; or a number of bytes.",
    "type": ["string", "integer"],
    "pattern": "^[0-9.]+ *([kKmMgGtTpPeE]?i?[bB]?)$",
    "minimum": 0,
}
schema! { JsonPath, "JsonPath",
    "description": "A field of a record, as \"$.card.items[0].price\".",
    "type": "string",
    "pattern": "^\\$",
}
schema! { Expression, "Expression",
    "description": "An expression over $in, $out and $f, as \"score >= 0.9 && $f.n_5m > 3\".",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_BYTES,
}
schema! { Template, "Template",
    "description": "An object whose texts are expressions, as { tx = \"$in.id\", p = \"$out.score\", f = \"$f\" }.",
    "type": "object",
}
schema! { Aggregate, "Aggregate",
    "description": "count, sum, mean, min, max, std, distinct (HyperLogLog), quantile(q) (DDSketch; q from 0 to 1), rate (per second), last, delta, time_since_last (seconds).",
    "type": "string",
    "pattern": "^(count|sum|mean|min|max|std|distinct|rate|last|delta|time_since_last|quantile\\( *(0|1|0?\\.[0-9]+|1\\.0*) *\\))$",
}
schema! { Codec, "Codec",
    "description": "json: a JSON object. raw, also called f32le: little-endian 32-bit floats, the model's row as it is; its scores, value or embedding. text: UTF-8, of an input only.",
    "enum": ["json", "raw", "f32le", "text"],
}
schema! { Inputs, "Inputs",
    "description": "A topic, or a list of topics.",
    "type": ["string", "array"],
    "items": { "type": "string" },
    "minItems": 1,
}
