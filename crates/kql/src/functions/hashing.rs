//! Hashes and base64.
//!
//! xxHash64 (seed 0) reads strings as UTF-8 and other scalars as their little-endian bytes; the cryptographic hashes
//! read every scalar as its text.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;

use super::Function;
use super::signature::{Arg, DYNAMIC, GUID, LONG, Param, Resolved, STR, fixed, optional};
use crate::types::Type;
use crate::value::{Dynamic, Value};

/// Largest text that decompression may give.
const MAX_INFLATED: u64 = 64 << 20;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("hash_xxhash64", resolve_hash, |_, a| xxhash(a)).alias(&["hash"]),
    Function::new("hash_md5", text_of, |_, a| Value::string(hex(&md5::Md5::digest(text(&a[0]))))),
    Function::new("hash_sha1", text_of, |_, a| Value::string(hex(&sha1::Sha1::digest(text(&a[0]))))),
    Function::new("hash_sha256", text_of, |_, a| Value::string(hex(&sha2::Sha256::digest(text(&a[0]))))),
    Function::new("base64_encode_tostring", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(STANDARD.encode(text(&a[0]))))
        .alias(&["base64_encodestring"]),
    Function::new(
        "base64_decode_tostring",
        |a| fixed(a, &[STR], Type::String),
        |_, a| {
            let decoded = decode(&a[0]).and_then(|bytes| String::from_utf8(bytes).ok());
            Value::string(decoded.unwrap_or_default())
        },
    )
    .alias(&["base64_decodestring"]),
    Function::new(
        "base64_decode_toarray",
        |a| fixed(a, &[STR], Type::Dynamic),
        |_, a| {
            decode(&a[0]).map_or(Value::Null, |bytes| Value::array(bytes.into_iter().map(|byte| Dynamic::Long(i64::from(byte))).collect()))
        },
    ),
    Function::new("base64_encode_fromarray", |a| fixed(a, &[DYNAMIC], Type::String), |_, a| encode_array(&a[0])),
    Function::new(
        "base64_encode_fromguid",
        |a| fixed(a, &[GUID], Type::String),
        |_, a| match &a[0] {
            Value::Guid(guid) => Value::string(STANDARD.encode(uuid::Uuid::from_u128(*guid).to_bytes_le())),
            _ => Value::string(""),
        },
    ),
    Function::new("base64_decode_toguid", |a| fixed(a, &[STR], Type::Guid), |_, a| decode_guid(&a[0])),
    Function::new(
        "gzip_decompress_from_base64_string",
        |a| fixed(a, &[STR], Type::String),
        |_, a| inflate(&a[0], |bytes, out| flate2::read::GzDecoder::new(bytes).take(MAX_INFLATED).read_to_string(out).is_ok()),
    ),
    Function::new(
        "zlib_decompress_from_base64_string",
        |a| fixed(a, &[STR], Type::String),
        |_, a| inflate(&a[0], |bytes, out| flate2::read::ZlibDecoder::new(bytes).take(MAX_INFLATED).read_to_string(out).is_ok()),
    ),
];

fn text_of(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Text], Type::String)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn resolve_hash(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[Param::Any, LONG], 1, Type::Long)
}

fn xxhash(args: &[Value]) -> Value {
    let hash = match &args[0] {
        Value::Null => return Value::Null,
        Value::Bool(v) => hash_bytes(&[u8::from(*v)]),
        Value::Int(v) => hash_bytes(&v.to_le_bytes()),
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => hash_bytes(&v.to_le_bytes()),
        Value::Real(v) => hash_bytes(&v.to_le_bytes()),
        Value::Guid(v) => hash_bytes(&uuid::Uuid::from_u128(*v).to_bytes_le()),
        other => hash_bytes(other.to_text().as_bytes()),
    };
    match args.get(1) {
        None => Value::Long(hash as i64),
        Some(modulus) => match modulus.as_long() {
            Some(modulus) if modulus > 0 => Value::Long((hash % modulus.unsigned_abs()) as i64),
            _ => Value::Null,
        },
    }
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, 0)
}

fn decode(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(text(value)).ok()
}

fn encode_array(value: &Value) -> Value {
    let bytes: Option<Vec<u8>> = value.as_array().and_then(|items| {
        let byte = |item: &Dynamic| match item {
            Dynamic::Long(byte) => u8::try_from(*byte).ok(),
            _ => None,
        };
        items.iter().map(byte).collect()
    });
    Value::string(bytes.map(|bytes| STANDARD.encode(bytes)).unwrap_or_default())
}

fn decode_guid(value: &Value) -> Value {
    let bytes: Option<[u8; 16]> = decode(value).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(Value::Null, |bytes| Value::Guid(uuid::Uuid::from_bytes_le(bytes).as_u128()))
}

fn inflate(value: &Value, read: fn(&[u8], &mut String) -> bool) -> Value {
    let mut out = String::new();
    let complete = decode(value).is_some_and(|bytes| read(&bytes, &mut out));
    Value::string(if complete { out } else { String::new() })
}
