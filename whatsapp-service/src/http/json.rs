//! JSON read into types: what nobody asked for is noted, and what is wrong is said in JSON's own words.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{http::problem::Problem, model::error_code::ErrorCode};

/// How many fields that nobody asked for are noted.
const NOTED: usize = 10;
/// How much of the name of each, in characters.
const NAME: usize = 64;

/// What was read from JSON, or why it could not be.
pub struct Parsed<T> {
    /// The value.
    pub value: Result<T, Problem>,
    /// The fields that were there and that the type does not have, each as the names that lead to it.
    pub ignored: Vec<Vec<String>>,
}

/// Reads a JSON object. No text, or only white space, is an empty one, and a byte order mark before it is skipped.
pub fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Parsed<T> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut ignored = Vec::new();
    let value = match bytes.trim_ascii_start().first() {
        None => read(b"{}", &mut ignored),
        Some(b'{') => read(bytes, &mut ignored),
        // An array would do for an object otherwise, its elements taken for fields in order.
        Some(_) => {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(not_json);
            Err(json.err().unwrap_or_else(|| Problem::new(ErrorCode::InvalidBody, "must be an object")))
        }
    };
    Parsed { value, ignored }
}

fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8], ignored: &mut Vec<Vec<String>>) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| {
        if ignored.len() < NOTED {
            let mut names = Vec::new();
            collect(&path, &mut names);
            ignored.push(names);
        }
    };
    let value = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    let value = value.map_err(|error| describe(&track.path().to_string(), &error))?;
    json.end().map_err(not_json)?;
    Ok(value)
}

/// The names that lead to a field.
fn collect(path: &serde_ignored::Path<'_>, names: &mut Vec<String>) {
    use serde_ignored::Path::{Map, NewtypeStruct, NewtypeVariant, Root, Seq, Some};
    match path {
        Root => {}
        Seq { parent, index } => {
            collect(parent, names);
            names.push(index.to_string());
        }
        Map { parent, key } => {
            collect(parent, names);
            names.push(key.chars().take(NAME).collect());
        }
        Some { parent } | NewtypeStruct { parent } | NewtypeVariant { parent } => collect(parent, names),
    }
}

/// Says which field is wrong and why. Only to the caller, who wrote it: it may repeat what stood there.
fn describe(path: &str, error: &serde_json::Error) -> Problem {
    if error.classify() != serde_json::error::Category::Data {
        return not_json(error);
    }
    let why = in_words(&error.to_string());
    Problem::new(ErrorCode::InvalidBody, if path == "." { why } else { format!("{path}: {why}") })
}

fn not_json(error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::InvalidJson, format!("The body is not JSON: {error}"))
}

/// What serde says is wrong, in words that need no knowledge of this program.
pub fn in_words(error: &str) -> String {
    let error = error.rsplit_once(" at line ").map_or(error, |(before, _)| before);
    let quoted = |after: &str| after.split('`').nth(1).unwrap_or_default().to_owned();
    if error.starts_with("missing field ") {
        return format!("`{}` is missing", quoted(error));
    }
    if error.starts_with("duplicate field ") {
        return format!("`{}` is there more than once", quoted(error));
    }
    if let Some((word, known)) = error.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        return format!("must be {known}, not {word}");
    }
    let found = error.strip_prefix("invalid type: ").or(error.strip_prefix("invalid value: "));
    if let Some((found, expected)) = found.and_then(|found| found.rsplit_once(", expected ")) {
        return format!("must be {}, not {}", wanted(expected), given(found));
    }
    match error {
        "invalid digit found in string" | "cannot parse integer from empty string" => "must be a whole number".into(),
        "number too large to fit in target type" => "must be a smaller number".into(),
        "number too small to fit in target type" => "must be a larger number".into(),
        other => other.into(),
    }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        "string or map" => "a string",
        expected if expected.starts_with("struct ") => "an object",
        expected if expected.starts_with("variant of ") || expected.starts_with("enum ") => "a string",
        expected => expected,
    }
}

fn given(found: &str) -> String {
    // What the caller wrote may be very long.
    const SHOWN: usize = 40;
    match found {
        "map" => "an object".into(),
        "sequence" => "an array".into(),
        "null" | "unit value" => "null".into(),
        found => match found.chars().count() {
            ..=SHOWN => found.into(),
            _ => format!("{}…", found.chars().take(SHOWN).collect::<String>()),
        },
    }
}

/// For serde: an object, or nothing. An array would do otherwise, its elements taken for fields in order.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(std::marker::PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    struct Maybe<T>(std::marker::PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Maybe<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_none<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
            from.deserialize_map(Object(std::marker::PhantomData)).map(Some)
        }
    }

    from.deserialize_option(Maybe(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, value::RawValue};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[allow(dead_code, reason = "what can be read counts")]
    struct Outer {
        name: String,
        count: Option<u64>,
        degrees: Option<f64>,
        is_good: Option<bool>,
        list: Option<Vec<String>>,
        word: Option<Word>,
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
        raw: Option<Box<RawValue>>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        number: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Yes,
        No,
    }

    fn refused(text: &str) -> String {
        let problem = parse::<Outer>(text.as_bytes()).value.expect_err(text);
        let said = serde_json::to_value(problem).unwrap();
        format!("{} {}", said["code"].as_str().unwrap(), said["message"].as_str().unwrap())
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_json() {
        for (text, why) in [
            ("{}", "invalid_body `name` is missing"),
            (r#"{"name":"a","name":"b"}"#, "invalid_body `name` is there more than once"),
            (r#"{"name":5}"#, "invalid_body name: must be a string, not integer `5`"),
            (r#"{"name":null}"#, "invalid_body name: must be a string, not null"),
            (r#"{"name":{"a":1}}"#, "invalid_body name: must be a string, not an object"),
            (r#"{"name":["a"]}"#, "invalid_body name: must be a string, not an array"),
            (r#"{"count":"5","name":"a"}"#, "invalid_body count: must be a whole number from 0 on, not string \"5\""),
            (r#"{"count":-5,"name":"a"}"#, "invalid_body count: must be a whole number from 0 on, not integer `-5`"),
            (r#"{"degrees":"5","name":"a"}"#, "invalid_body degrees: must be a number, not string \"5\""),
            (r#"{"isGood":1,"name":"a"}"#, "invalid_body isGood: must be a boolean, not integer `1`"),
            (r#"{"list":{},"name":"a"}"#, "invalid_body list: must be an array, not an object"),
            (r#"{"list":["a",1],"name":"a"}"#, "invalid_body list[1]: must be a string, not integer `1`"),
            (r#"{"word":"perhaps","name":"a"}"#, "invalid_body word: must be `yes` or `no`, not `perhaps`"),
            (r#"{"inner":"x","name":"a"}"#, "invalid_body inner: must be an object, not string \"x\""),
            (r#"{"inner":[1],"name":"a"}"#, "invalid_body inner: must be an object, not an array"),
            (r#"{"inner":{},"name":"a"}"#, "invalid_body inner: `number` is missing"),
            (r#"{"inner":{"number":"x"},"name":"a"}"#, "invalid_body inner.number: must be a number, not string \"x\""),
            ("[]", "invalid_body must be an object"),
            ("5", "invalid_body must be an object"),
        ] {
            assert_eq!(refused(text), why, "{text}");
        }
        let long = format!(r#"{{"count":"{}"}}"#, "x".repeat(10_000));
        assert!(refused(&long).len() < 200);
        for text in ["{", "nothing", r#"{"name":"\ud800"}"#, r#"{"name":"a"} {}"#, r#"{"degrees":1e999,"name":"a"}"#] {
            let why = refused(text);
            assert!(why.starts_with("invalid_json The body is not JSON: "), "{text}: {why}");
        }
        assert!(refused("{\n5}").ends_with("at line 2 column 1"), "where it is no JSON is said");
    }

    #[test]
    fn what_nobody_asked_for_is_noted_with_the_way_there() {
        let text = r#"{"nam":1,"inner":{"number":1,"numbr":{"a":[1]}},"name":"a","raw":{"x":1},"":2}"#;
        let Parsed { value, ignored } = parse::<Outer>(text.as_bytes());
        let value = value.unwrap();
        assert_eq!((value.inner.unwrap().number, value.raw.unwrap().get()), (1.0, r#"{"x":1}"#));
        assert_eq!(ignored, [vec!["nam"], vec!["inner", "numbr"], vec![""]]);
        // Also where something else is wrong.
        assert_eq!(parse::<Outer>(br#"{"nme":"a"}"#).ignored, [["nme"]]);
        let many: String = (0..1000).map(|n| format!(r#","{n}{}":{{}}"#, "x".repeat(1000))).collect();
        let Parsed { value, ignored } = parse::<Outer>(format!(r#"{{"name":"a"{many}}}"#).as_bytes());
        assert!(value.is_ok() && ignored.len() == NOTED && ignored.iter().all(|names| names[0].len() == NAME));
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_nothing_is_an_empty_object() {
        assert_eq!(parse::<Outer>("\u{feff}{\"name\":\"a\"}".as_bytes()).value.unwrap().name, "a");
        for text in ["", " \n", "\u{feff}", "\u{feff} {}"] {
            assert_eq!(parse::<Value>(text.as_bytes()).value.unwrap(), serde_json::json!({}), "{text:?}");
        }
        assert!(parse::<Value>(b"\xff\xfe{\0}\0").value.is_err());
    }
}
