use super::*;

#[test]
fn a_secret_must_be_one_that_nobody_else_knows() {
    let parse = |text: &str| text.parse::<Secrets>().err();
    assert_eq!(parse(""), Some(InvalidSecret::Missing));
    assert_eq!(parse("  "), Some(InvalidSecret::Missing));
    assert_eq!(parse("a,"), Some(InvalidSecret::Missing));
    assert_eq!(parse(EXAMPLE_SECRET), Some(InvalidSecret::Example));
    assert_eq!(parse("a,change-me"), Some(InvalidSecret::Example));
    assert_eq!(parse("a,b,c"), Some(InvalidSecret::TooMany));
}

#[test]
fn either_of_two_secrets_is_accepted_and_nothing_else() {
    let secrets: Secrets = "old, new".parse().unwrap();
    assert!(secrets.accept(b"old") && secrets.accept(b"new"));
    for wrong in ["", "ol", "old ", "old, new", "OLD"] {
        assert!(!secrets.accept(wrong.as_bytes()), "{wrong:?}");
    }
    assert!(!format!("{secrets:?}").contains("old"));
}

#[test]
fn a_secret_comes_from_the_setting_or_from_a_file_but_not_from_both() {
    let folder = tempfile::tempdir().unwrap();
    let (full, empty) = (folder.path().join("full"), folder.path().join("empty"));
    fs::write(&full, "of the file\n").unwrap();
    fs::write(&empty, "\n").unwrap();
    let ask = |text: Option<&str>, file: Option<&Path>| {
        secret("NAME", text.map(SecretText::from).as_ref(), file).map(|found| found.map(|text| text.text().to_owned()))
    };
    assert_eq!(ask(None, None).unwrap(), None);
    assert_eq!(ask(Some(""), None).unwrap(), None);
    assert_eq!(ask(Some("set"), None).unwrap().as_deref(), Some("set"));
    assert_eq!(ask(Some("set"), Some(Path::new(""))).unwrap().as_deref(), Some("set"));
    assert_eq!(ask(Some(""), Some(&full)).unwrap().as_deref(), Some("of the file"));
    let complaint = |text, file: &Path| ask(text, Some(file)).unwrap_err().to_string();
    assert_eq!(complaint(Some("set"), &full), "both NAME and NAME_FILE are set: set one of them");
    assert_eq!(complaint(None, &empty), "NAME_FILE: the file is empty");
    assert!(complaint(None, folder.path()).starts_with("NAME_FILE: can't read"));
}

#[test]
fn versions_and_durations() {
    assert_eq!(parse_version("2.3000.1023"), Ok((2, 3000, 1023)));
    assert!(parse_version("2.3000").is_err() && parse_version("2.x.1").is_err());
    assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
    assert_eq!((parse_rate("0"), parse_rate("0.5"), parse_rate("10")), (Ok(0.0), Ok(0.5), Ok(10.0)));
    assert!(["-1", "x", "inf", "NaN", "0.0001", "1e9"].into_iter().all(|text| parse_rate(text).is_err()));
    assert!(["0", "-1", "x", "inf", "NaN"].into_iter().all(|text| parse_seconds(text).is_err()));
}
