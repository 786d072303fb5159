//! Functions against values of Kusto's documentation and answers of its engine.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{Arg, all, conversion, lookup};
use crate::eval::EvalContext;
use crate::types::Type;
use crate::value::{Dynamic, Value, parse_datetime, parse_timespan};

/// Resolves and computes a call as the binder does; the error says why it was refused.
fn try_call(name: &str, args: &[Value]) -> Result<(Type, Value), String> {
    let function = lookup(name).ok_or("no such function")?;
    let described: Vec<Arg<'_>> = args.iter().map(|v| Arg { ty: v.ty().unwrap_or(Type::Dynamic), constant: Some(v) }).collect();
    let resolved = (function.resolve)(&described)?;
    let mut ctx = EvalContext::new(0);
    let mut converted = Vec::new();
    for (value, wanted) in args.iter().zip(&resolved.args) {
        let cast = conversion(value.ty().unwrap_or(Type::Dynamic), *wanted).and_then(lookup);
        converted.push(cast.map_or_else(|| value.clone(), |cast| (cast.eval)(&mut ctx, std::slice::from_ref(value))));
    }
    Ok((resolved.ty, (function.eval)(&mut ctx, &converted)))
}

fn call(name: &str, args: &[Value]) -> Value {
    try_call(name, args).unwrap().1
}

fn s(text: &str) -> Value {
    Value::string(text)
}

fn l(value: i64) -> Value {
    Value::Long(value)
}

fn r(value: f64) -> Value {
    Value::Real(value)
}

fn j(json: &str) -> Value {
    Value::dynamic(Dynamic::parse_json(json).unwrap())
}

fn t(text: &str) -> Value {
    Value::DateTime(parse_datetime(text).unwrap())
}

fn d(text: &str) -> Value {
    Value::TimeSpan(parse_timespan(text).unwrap())
}

#[test]
fn names_are_unique() {
    let mut all: Vec<_> = all().map(|f| f.name).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn integers_compute_as_long_and_wrap() {
    assert_eq!(try_call("+", &[Value::Int(1), Value::Int(2)]).unwrap(), (Type::Long, l(3)));
    assert_eq!(call("/", &[l(7), l(2)]), l(3));
    assert_eq!(call("/", &[l(-7), l(2)]), l(-3));
    assert_eq!(call("/", &[l(7), l(0)]), Value::Null);
    assert_eq!(call("/", &[r(7.0), r(0.0)]), r(f64::INFINITY));
    assert_eq!(call("+", &[l(i64::MAX), l(1)]), l(i64::MIN));
    assert_eq!(call("%", &[l(-100), l(7)]), l(5));
    assert_eq!(try_call("*", &[l(2), r(1.5)]).unwrap(), (Type::Real, r(3.0)));
    assert!(try_call("+", &[s("a"), l(1)]).is_err());
}

#[test]
fn datetimes_and_timespans_compute() {
    assert_eq!(call("-", &[t("2020-03-01"), t("2020-02-28")]), d("2.00:00:00"));
    assert_eq!(call("+", &[t("2020-02-28"), d("1d")]), t("2020-02-29"));
    assert_eq!(call("/", &[d("1d"), d("1h")]), r(24.0));
    assert_eq!(call("*", &[l(-2), d("1h")]), d("-02:00:00"));
    assert_eq!(call("+", &[t("9999-12-31"), d("2d")]), Value::Null);
}

#[test]
fn equality_is_total_and_order_is_not() {
    assert_eq!(call("==", &[l(1), Value::Null]), Value::Bool(false));
    assert_eq!(call("!=", &[l(1), Value::Null]), Value::Bool(true));
    assert_eq!(call("==", &[Value::Null, Value::Null]), Value::Null);
    assert_eq!(call("<", &[l(1), Value::Null]), Value::Null);
    assert_eq!(call("==", &[r(f64::NAN), r(f64::NAN)]), Value::Bool(false));
    assert_eq!(call("==", &[j(r#"{"a":"x"}"#), s("y")]), Value::Bool(false));
    assert_eq!(call("==", &[call("[]", &[j(r#"{"a":"x"}"#), s("a")]), s("x")]), Value::Bool(true));
    assert_eq!(call("in", &[l(3), j("[1,3]")]), Value::Bool(true));
    assert_eq!(call("!in", &[Value::Null, l(1)]), Value::Bool(true));
    assert!(try_call("==", &[s("1"), l(1)]).is_err());
}

#[test]
fn has_looks_for_terms() {
    for (text, term, found) in [
        ("North America", "america", true),
        ("NorthAmerica", "america", false),
        ("a_b", "b", true),
        ("x1", "x", false),
        ("tag=value", "tag=", true),
        ("anything", "", true),
    ] {
        assert_eq!(call("has", &[s(text), s(term)]), Value::Bool(found), "{text} has {term}");
        assert_eq!(call("!has", &[s(text), s(term)]), Value::Bool(!found));
    }
    assert_eq!(call("has_cs", &[s("North"), s("north")]), Value::Bool(false));
    assert_eq!(call("hasprefix", &[s("North America"), s("ame")]), Value::Bool(true));
    assert_eq!(call("hassuffix", &[s("North America"), s("rth")]), Value::Bool(true));
    assert_eq!(call("has_any", &[s("a b"), j(r#"["x","B"]"#)]), Value::Bool(true));
    assert_eq!(call("has_all", &[s("a b"), s("a"), s("x")]), Value::Bool(false));
    assert_eq!(call("in~", &[s("Müller"), s("MÜLLER")]), Value::Bool(true));
}

#[test]
fn casts_refuse_what_is_not_exact_and_saturate() {
    assert_eq!(call("toint", &[s("5.7")]), Value::Null);
    assert_eq!(call("toint", &[r(5.7)]), Value::Int(5));
    assert_eq!(call("toint", &[l(2_147_483_648)]), Value::Int(i32::MIN));
    assert_eq!(call("tolong", &[r(1e30)]), l(i64::MAX));
    assert_eq!(call("tolong", &[s("0x10")]), l(16));
    assert_eq!(call("todouble", &[s("1e400")]), r(f64::INFINITY));
    assert_eq!(call("tobool", &[s("TRUE")]), Value::Bool(true));
    assert_eq!(call("todatetime", &[s("2020-13-01")]), Value::Null);
    assert_eq!(call("tostring", &[Value::Bool(true)]), s("True"));
    assert_eq!(call("tostring", &[j("true")]), s("true"));
    assert_eq!(call("tostring", &[Value::Null]), s(""));
    assert_eq!(call("todecimal", &[s("1.5")]), Value::Decimal(Decimal::new(15, 1)));
    assert_eq!(call("parse_json", &[s("not json")]), j("\"not json\""));
}

#[test]
fn reals_print_as_kusto_prints_them() {
    for (value, text) in [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1500.0, "1500.0"),
        (0.1 + 0.2, "0.30000000000000007"),
        (1.0 / 3.0, "0.3333333333333333"),
        (1e11, "100000000000.0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        assert_eq!(call("tostring", &[r(value)]), s(text));
    }
}

#[test]
fn strings_are_counted_in_characters() {
    assert_eq!(call("strlen", &[s("⒦⒰⒮⒯⒪")]), l(5));
    assert_eq!(call("string_size", &[s("⒦⒰⒮⒯⒪")]), l(15));
    assert_eq!(call("substring", &[s("abcdef"), l(-2)]), s("ef"));
    assert_eq!(call("substring", &[s("abc"), l(1), l(-1)]), s(""));
    assert_eq!(call("substring", &[s("x"), l(-2), l(5)]), s(""));
    assert_eq!(call("indexof", &[s("abcdefgabcdefg"), s("cde"), l(1), l(10), l(2)]), l(9));
    assert_eq!(call("indexof", &[s("abc"), s("")]), Value::Null);
    assert_eq!(call("countof", &[s("aaaa"), s("aa")]), l(3));
    assert_eq!(call("reverse", &[l(12345)]), s("54321"));
    assert_eq!(call("split", &[s("a__b"), s("_")]), j(r#"["a","","b"]"#));
    assert_eq!(call("split", &[s("aaa_bbb_ccc"), s("_"), l(1)]), j(r#"["bbb"]"#));
    assert_eq!(call("replace_strings", &[s("cat and dog"), j(r#"["cat","dog"]"#), j(r#"["dog","pigeon"]"#)]), s("dog and pigeon"));
    assert_eq!(call("translate", &[s("krasp"), s("otsku"), s("spark")]), s("kusto"));
    assert_eq!(call("strrep", &[l(123), l(3), s(".")]), s("123.123.123"));
    assert_eq!(call("strcat_delim", &[s("-"), l(1), s("A"), Value::Bool(true)]), s("1-A-True"));
    assert_eq!(call("make_string", &[l(75), j("[117,115]"), l(116), l(111)]), s("Kusto"));
    assert_eq!(call("punycode_to_string", &[s("acadmie-franaise-npb1a")]), s("académie-française"));
}

#[test]
fn regexes_extract_and_replace() {
    assert_eq!(call("extract", &[s("x=([0-9.]+)"), l(1), s("hello x=45.6|wo")]), s("45.6"));
    assert_eq!(call("extract", &[s("x=([0-9.]+)"), l(1), s("x=45.6"), s("real")]), r(45.6));
    assert_eq!(call("extract_all", &[s(r"(\d+)"), s("123, 567 and 789")]), j(r#"["123","567","789"]"#));
    assert_eq!(call("extract_all", &[s(r"([a-z])(\d)?"), s("a1 b")]), j(r#"[["a","1"],["b",""]]"#));
    assert_eq!(call("extract_all", &[s(r"(\d)"), s("none")]), Value::Null);
    assert_eq!(call("replace_regex", &[s("Number is 1"), s(r"is (\d+)"), s(r"was: \1")]), s("Number was: 1"));
    assert_eq!(call("trim", &[s("--"), s("--https://bing.com--")]), s("https://bing.com"));
    assert_eq!(call("trim_start", &[s(r"[^\w]+"), s("-  Te st1// $")]), s("Te st1// $"));
    assert_eq!(call("trim", &[s("x"), s("xxx")]), s("x"));
    assert!(try_call("extract", &[s("("), l(1), s("x")]).is_err());
}

#[test]
fn calendar() {
    let at = t("2017-10-30 01:02:03.7654321");
    for (part, value) in [("year", 2017), ("quarter", 4), ("week_of_year", 44), ("dayOfYear", 303), ("nanosecond", 765_432_100)] {
        assert_eq!(call("datetime_part", &[s(part), at.clone()]), l(value), "{part}");
    }
    assert_eq!(call("startofweek", &[t("2020-06-15 13:45:00"), l(-2)]), t("2020-05-31"));
    assert_eq!(call("endofmonth", &[t("2020-02-28")]), t("2020-02-29 23:59:59.9999999"));
    assert_eq!(call("dayofweek", &[t("1970-05-11")]), d("1.00:00:00"));
    assert_eq!(call("datetime_add", &[s("month"), l(-15), t("2017-01-01")]), t("2015-10-01"));
    assert_eq!(call("datetime_diff", &[s("quarter"), t("2017-07-01"), t("2017-03-30")]), l(2));
    let weeks = try_call("datetime_diff", &[s("week"), t("2017-10-29 00:00"), t("2017-09-30 23:59")]);
    assert_eq!(weeks.unwrap(), (Type::Real, r(5.0)));
    assert_eq!(call("make_datetime", &[l(2020), l(13), l(1)]), Value::Null);
    assert_eq!(call("make_timespan", &[l(1), l(12), l(30), r(55.123)]), d("1.12:30:55.123"));
    assert_eq!(call("week_of_year", &[t("2021-12-26")]), l(51));
    assert_eq!(call("unixtime_seconds_todatetime", &[l(1_546_300_800)]), t("2019-01-01"));
    assert_eq!(call("datetime_local_to_utc", &[t("2020-02-02 20:02:20"), s("Europe/Paris")]), t("2020-02-02 19:02:20"));
    assert_eq!(call("datetime_utc_to_local", &[t("2020-02-03 04:02:20"), s("US/Pacific")]), t("2020-02-02 20:02:20"));
}

#[test]
fn bins_round_down() {
    assert_eq!(call("bin", &[l(-5), l(2)]), l(-6));
    assert_eq!(call("bin", &[r(5.5), l(2)]), r(4.0));
    assert_eq!(call("bin", &[t("1955-11-05 06:15"), d("7d")]), t("1955-10-31"));
    assert_eq!(call("bin", &[l(5), l(0)]), Value::Null);
    assert_eq!(call("bin_at", &[r(6.5), r(2.5), l(7)]), r(4.5));
    assert_eq!(call("bin_at", &[t("2017-05-17 10:20"), d("7d"), t("2017-06-04")]), t("2017-05-14"));
    assert_eq!(call("round", &[r(-2.5)]), r(-3.0));
    assert_eq!(call("round", &[r(3.25), l(1)]), r(3.3));
    assert_eq!(call("log", &[r(-1.0)]), Value::Null);
}

#[test]
fn formats() {
    let at = t("2007-03-09 17:04:03.5");
    for (format, text) in [("yyyy-M-dd [H:mm:ss]", "2007-3-09 [17:04:03]"), ("h tt", "5 PM"), ("dddd, y", "0909, 07"), ("s.FFF", "3.5")] {
        assert_eq!(call("format_datetime", &[at.clone(), s(format)]), s(text), "{format}");
    }
    assert_eq!(call("format_timespan", &[d("-1.02:30:00"), s("d.hh:mm:ss")]), s("-1.02:30:00"));
    assert_eq!(call("format_timespan", &[d("1d"), s("dddd")]), s("0001"));
    assert_eq!(call("format_bytes", &[l(564)]), s("564 Bytes"));
    assert_eq!(call("format_bytes", &[l(10332), l(1)]), s("10.1 KB"));
    assert_eq!(call("format_bytes", &[l(20_010_332)]), s("19 MB"));
}

#[test]
fn arrays() {
    let five = j("[1,2,3,4,5]");
    assert_eq!(call("array_slice", &[five.clone(), l(-3), l(-2)]), j("[3,4]"));
    assert_eq!(call("array_rotate_left", &[five.clone(), l(-2)]), j("[4,5,1,2,3]"));
    assert_eq!(call("array_shift_right", &[five.clone(), l(-2), l(-1)]), j("[3,4,5,-1,-1]"));
    assert_eq!(call("array_split", &[five.clone(), l(2)]), j("[[1,2],[3,4,5]]"));
    assert_eq!(call("array_sum", std::slice::from_ref(&five)), r(15.0));
    assert_eq!(call("array_length", &[j("{}")]), Value::Null);
    assert_eq!(call("array_sort_desc", &[j(r#"[null,"b","y"]"#), Value::Bool(false)]), j(r#"[null,"y","b"]"#));
    assert_eq!(call("array_iff", &[j("[1,0,50]"), s("yes"), s("no")]), j(r#"["yes","no","yes"]"#));
    assert_eq!(call("set_difference", &[j("[1,2,1,3]"), j("[2]")]), j("[1,3]"));
    assert_eq!(call("zip", &[j("[1,3]"), j("[2]")]), j("[[1,2],[3,null]]"));
    assert_eq!(call("range", &[l(1), l(3)]), j("[1,2,3]"));
    assert_eq!(call("[]", &[five, l(-1)]), j("5"));
}

#[test]
fn bags() {
    assert_eq!(call("bag_merge", &[j(r#"{"a":1}"#), j(r#"{"a":2,"b":3}"#)]), j(r#"{"a":1,"b":3}"#));
    assert_eq!(call("bag_set_key", &[j(r#"{"k":{"p":1}}"#), s("$.k.q"), l(2)]), j(r#"{"k":{"p":1,"q":2}}"#));
    assert_eq!(call("bag_remove_keys", &[j(r#"{"a":1,"b":2}"#), j(r#"["b","x"]"#)]), j(r#"{"a":1}"#));
    assert_eq!(call("dynamic_to_json", &[j(r#"{"b":2,"a":[1]}"#)]), s(r#"{"a":[1],"b":2}"#));
    assert_eq!(call("treepath", &[j(r#"{"a":{"b":1}}"#)]), j(r#"["['a']","['a']['b']"]"#));
    assert_eq!(call("extract_json", &[s("$.hosts[1].AvailableMB"), s(r#"{"hosts":[{},{"AvailableMB":8}]}"#), s("int")]), Value::Int(8));
}

#[test]
fn hashes() {
    assert_eq!(call("hash_xxhash64", &[s("World")]), l(1_846_988_464_401_551_951));
    assert_eq!(call("hash_xxhash64", &[t("2015-01-01")]), l(1_380_966_698_541_616_202));
    assert_eq!(call("hash", &[s("World"), l(100)]), l(51));
    assert_eq!(call("hash_sha1", &[s("World")]), s("70c07ec18ef89c5309bbb0937f3a6342411e1fdd"));
    assert_eq!(call("hash_sha1", &[t("2020-01-01")]), s("e903e533f4d636b4fc0dcf3cf81e7b7f330de776"));
    assert_eq!(call("base64_decode_toarray", &[s("S3VzdG8=")]), j("[75,117,115,116,111]"));
}

#[test]
fn networks() {
    assert_eq!(call("parse_ipv4", &[s("255.255.255.255/31")]), l(4_294_967_294));
    assert_eq!(call("format_ipv4_mask", &[s("192.168.1.1/24"), l(32)]), s("192.168.1.0/24"));
    assert_eq!(call("ipv4_compare", &[s("192.168.1.1"), s("192.168.1.255"), l(24)]), l(0));
    assert_eq!(call("ipv6_compare", &[s("::192.168.1.1/30"), s("192.168.1.255/24"), l(127)]), l(0));
    assert_eq!(
        call("ipv4_range_to_cidr_list", &[s("1.1.128.0"), s("1.1.140.255")]),
        j(r#"["1.1.128.0/21","1.1.136.0/22","1.1.140.0/24"]"#)
    );
    assert_eq!(call("has_ipv4", &[s("05:04:54 127.0.0.1 GET"), s("127.0.0.1")]), Value::Bool(true));
    assert_eq!(call("has_ipv4_prefix", &[s("05:04:54127.0.0.1 GET"), s("127.0.")]), Value::Bool(false));
    assert_eq!(call("parse_ipv6", &[s("2001:db8::10")]), s("2001:0db8:0000:0000:0000:0000:0000:0010"));
}

#[test]
fn texts_are_taken_apart() {
    let url = "scheme://user:pw@host:1234/a/path?k1=v1&k2=v2#frag";
    let parts = call("parse_url", &[s(url)]);
    assert_eq!(
        parts,
        j(
            r#"{"Scheme":"scheme","Host":"host","Port":"1234","Path":"/a/path","Username":"user","Password":"pw","Query Parameters":{"k1":"v1","k2":"v2"},"Fragment":"frag"}"#
        )
    );
    assert_eq!(call("parse_csv", &[s("aa,\"b,\"\"b\"\n2,3")]), j(r#"["aa","b,\"b"]"#));
    assert_eq!(call("parse_version", &[s("0.2")]), Value::Decimal(Decimal::from(20_000_000_000_000_000_i64)));
    assert_eq!(call("parse_command_line", &[s("echo \"hello world!\""), s("windows")]), j(r#"["echo","hello world!"]"#));
    assert_eq!(call("url_encode", &[s("https://b.com/a b")]), s("https%3a%2f%2fb.com%2fa+b"));
    assert_eq!(call("url_decode", &[s("https%3a%2f%2fb.com%2f")]), s("https://b.com/"));
}

fn close(value: &Value, expected: f64) {
    let Value::Real(got) = value else { panic!("{value:?} is not {expected}") };
    assert!((got - expected).abs() <= 1e-12 * expected.abs().max(1e-12), "{got} is not {expected}");
}

#[test]
fn distributions() {
    close(&call("erfc", &[l(2)]), 0.004_677_734_981_047_266);
    close(&call("erfc", &[l(-3)]), 1.999_977_909_503_001_5);
    close(&call("beta_pdf", &[r(0.5), r(10.0), r(20.0)]), 0.746_176_019_310_951);
    close(&call("beta_cdf", &[call("beta_inv", &[r(0.1), r(10.0), r(20.0)]), r(10.0), r(20.0)]), 0.1);
    assert_eq!(call("erf", &[l(0)]), r(0.0));
}

#[test]
fn units_convert() {
    close(&call("convert_angle", &[r(1.2), s("Degree"), s("Arcminute")]), 72.0);
    close(&call("convert_length", &[r(1.2), s("Meter"), s("Foot")]), 3.937_007_874_015_747_7);
    close(&call("convert_speed", &[r(1.2), s("MeterPerSecond"), s("CentimeterPerHour")]), 432_000.0);
    close(&call("convert_temperature", &[r(1.2), s("Kelvin"), s("DegreeCelsius")]), -271.95);
    close(&call("convert_volume", &[r(1.2), s("CubicMeter"), s("Liter")]), 1200.0);
    assert!(try_call("convert_mass", &[r(1.0), s("Gram"), s("Furlong")]).is_err());
}

#[test]
fn geography() {
    let points = [r(-122.407_628), r(47.578_557), r(-118.275_287), r(34.019_056)];
    close(&call("geo_distance_2points", &points), 1_546_754.351_973_809_5);
    close(&call("geo_azimuth", &[l(5), l(10), l(10), l(-40)]), 3.054_599_397_964_492);
    assert_eq!(call("geo_distance_2points", &[l(300), l(1), l(1), l(1)]), Value::Null);
    assert_eq!(call("geo_point_to_geohash", &[r(-80.195_829), r(25.802_215), l(8)]), s("dhwfz15h"));
    let around = r#"["sunnv","sunnt","sunnw","sunnx","sunpp","sunnz","sunpn","sunpj"]"#;
    assert_eq!(call("geo_geohash_neighbors", &[s("sunny")]), j(around));
    assert_eq!(call("geo_geohash_to_central_point", &[s("a")]), Value::Null);
}

#[test]
fn series() {
    assert_eq!(call("series_fill_linear", &[j("[null,111,null,36,41,null,null,16,null]")]), j("[111,111,73,36,41,32,24,16,16]"));
    assert_eq!(call("series_fir", &[j("[1,2,3]"), j("[1,1]"), Value::Bool(false)]), j("[1.0,3.0,5.0]"));
    assert_eq!(call("series_iir", &[j("[0,1,2,3,4]"), j("[1]"), j("[1,-1]")]), j("[0.0,1.0,3.0,6.0,10.0]"));
    assert_eq!(call("series_dot_product", &[j("[1,2,4]"), l(1)]), r(7.0));
    assert_eq!(call("series_greater", &[j("[1,2,4]"), j("[4,2,1]")]), j("[false,false,true]"));
}

/// Any scalar, with the edges that overflow.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::Int),
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -2_i64..3].prop_map(Value::Long),
        any::<f64>().prop_map(Value::Real),
        ".{0,12}".prop_map(Value::string),
        (0..=crate::value::MAX_DATETIME_TICKS).prop_map(Value::DateTime),
        any::<i64>().prop_map(Value::TimeSpan),
        prop::collection::vec(any::<i64>().prop_map(Dynamic::Long), 0..4).prop_map(Value::array),
        (any::<i64>(), 0..28_u32).prop_map(|(n, scale)| Value::Decimal(Decimal::new(n, scale))),
    ]
}

/// Whether a function accepts the arguments and computes something of another type than it announced.
fn breaks_its_word(name: &str, args: &[Value]) -> bool {
    try_call(name, args).is_ok_and(|(ty, value)| value.ty().is_some_and(|got| got != ty))
}

proptest! {
    /// Whatever a function accepts it computes without panicking, in the type that it announced.
    #[test]
    fn no_function_panics(args in prop::collection::vec(scalar(), 0..4), pick in any::<prop::sample::Index>()) {
        let all: Vec<_> = all().map(|f| f.name).collect();
        let name = all[pick.index(all.len())];
        prop_assert!(!breaks_its_word(name, &args), "{}", name);
    }

    #[test]
    fn operators_do_not_panic(a in scalar(), b in scalar()) {
        for name in ["+", "-", "*", "/", "%", "==", "<", "bin", "has", "[]", "in"] {
            prop_assert!(!breaks_its_word(name, &[a.clone(), b.clone()]), "{}", name);
        }
    }
}
