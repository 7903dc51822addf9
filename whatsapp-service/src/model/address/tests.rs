//! What is an address, and what is none.

use proptest::prelude::*;

use crate::model::address::*;

fn address(text: &str) -> Result<String, InvalidAddress> {
    Person::parse(text).map(|person| person.address())
}

fn forms(text: &str) -> Vec<String> {
    let number = Address::parse(text).unwrap().number().unwrap();
    number.forms().iter().map(|form| form.digits().to_owned()).collect()
}

#[test]
fn a_number_is_read_with_what_people_put_around_it() {
    for (text, number) in [
        ("5511999999999", "5511999999999"),
        ("+55 (11) 99999-9999", "5511999999999"),
        ("(+55) 11 99999.9999", "5511999999999"),
        ("+49 151/1234-5678", "4915112345678"),
        ("0039 392 123 4567", "393921234567"),
        ("00 39 392 1234567", "393921234567"),
        ("+39 (06) 1234567", "39061234567"),
        (" \u{202a}+55\u{a0}11 99999\u{2011}9999\u{202c}\u{200b}\n", "5511999999999"),
        ("\u{feff}+55 11 99999\u{2013}9999", "5511999999999"),
        ("tel:+55-11-99999-9999", "5511999999999"),
        ("TEL:%2B55%2011%2099999-9999", "5511999999999"),
        ("https://wa.me/5511999999999", "5511999999999"),
        ("HTTPS://WA.ME/%2B5511999999999/?text=Hi%20Ana", "5511999999999"),
        ("wa.me/5511999999999#x", "5511999999999"),
        ("5511999999999@s.whatsapp.net", "5511999999999"),
        ("4915199998000:12@s.whatsapp.net", "4915199998000"),
        ("4915199998000.0:12@s.whatsapp.net", "4915199998000"),
        ("5511999999999@C.US", "5511999999999"),
        ("5511999999999@hosted", "5511999999999"),
        ("713715344025739@lid", "713715344025739@lid"),
        ("713715344025739:3@lid", "713715344025739@lid"),
        ("\u{2068}713715344025739@lid\u{2069}", "713715344025739@lid"),
        ("713715344025739@hosted.lid", "713715344025739@lid"),
    ] {
        assert_eq!(address(text).as_deref(), Ok(number), "{text:?}");
    }
}

#[test]
fn what_is_no_address_is_refused_with_what_was_seen() {
    for (text, said) in [
        ("", "is empty"),
        (" \u{200b}\t", "is empty"),
        ("1234567", "8 to 15 digits, with the country code; it has 7"),
        ("1234567890123456", "8 to 15 digits, with the country code; it has 16"),
        ("+", "it has 0"),
        ("0800 1234567", "without a 0 or 00 in front of it"),
        ("08123456789", "without a 0 or 00 in front of it"),
        ("+0049 151 1234567", "without a 0 or 00 in front of it"),
        ("000 49 151 1234567", "without a 0 or 00 in front of it"),
        ("00011999999999@s.whatsapp.net", "without a 0 or 00 in front of it"),
        ("+49 (0)151 12345678", "without a 0 or 00 in front of it; it has `(0)`"),
        ("+49 ( 0 ) 151 12345678", "it has `(0)`"),
        ("tel:+49(0)151-12345678", "it has `(0)`"),
        ("+1 201 555 0123 ext. 12", "has an extension (`ext. 12`)"),
        ("+12015550123x12", "has an extension (`x12`)"),
        ("+12015550123#12", "has an extension (`#12`)"),
        ("tel:+1-201-555-0123;ext=12", "has an extension (`;ext=12`)"),
        ("ext. 12", "has `e` in place 1"),
        ("nobody", "has `n` in place 1"),
        ("+55 11 9999O-9999", "has `O` in place 12"),
        ("55+11999999999", "has `+` in place 3"),
        ("++5511999999999", "has `+` in place 2"),
        ("5511999999999,5511888888888", "has `,` in place 14"),
        ("٥٥١١٩٩٩٩٩٩٩٩٩", "has `٥` in place 1"),
        ("https://wa.me/message/ABCDEFG", "is a link without a number"),
        ("https://wa.me/", "is a link without a number"),
        ("https://wa.me/123", "it has 3"),
        ("https://example.com/5511999999999", "has `h` in place 1"),
        ("@lid", "digits stand in front of @lid"),
        ("ana@lid", "digits stand in front of @lid"),
        ("713715344025739:x@lid", "digits stand in front of @lid"),
        ("713715344025739:70000@lid", "digits stand in front of @lid"),
        ("55 11 99999-9999@s.whatsapp.net", "digits stand in front of @s.whatsapp.net"),
        ("5511999999999:@s.whatsapp.net", "digits stand in front of @s.whatsapp.net"),
        ("1234@c.us", "it has 4"),
        ("status@broadcast", "ends in `@broadcast`"),
        ("5511999999999@broadcast", "ends in `@broadcast`"),
        ("120363012345678901@newsletter", "ends in `@newsletter`"),
        ("ana@example.com", "ends in `@example.com`"),
        ("5511999999999@", "ends in `@`"),
        ("1203630@g.us", "is a group: groups are not supported yet"),
        ("5511999999999-1512345678@g.us", "is a group: groups are not supported yet"),
        ("ana@g.us", "digits stand in front of @g.us"),
    ] {
        let refused = address(text).expect_err(text).of("to");
        assert!(refused.starts_with("`to` ") && refused.contains(said), "{text:?}: {refused}");
    }
    // What is repeated is short, however long it was.
    for text in [format!("1@{}", "x".repeat(9000)), format!("5511999999999x{}", "1".repeat(9000))] {
        assert!(address(&text).unwrap_err().to_string().len() < 200);
    }
}

#[test]
fn a_number_is_wanted_where_only_a_number_will_do() {
    for text in ["713715344025739@lid", "1203630@g.us"] {
        let refused = Address::parse(text).unwrap().number().unwrap_err();
        assert_eq!(refused.of("phone"), "`phone` needs a phone number: 8 to 15 digits, with the country code");
    }
    assert_eq!(Address::parse("tel:+5511999999999").unwrap().number().unwrap().digits(), "5511999999999");
}

#[test]
fn the_forms_of_brazil_mexico_and_argentina() {
    for (text, expected) in [
        ("5511999998888", &["5511999998888", "551199998888"][..]),
        ("551199998888", &["551199998888", "5511999998888"]),
        ("5215512345678", &["5215512345678", "525512345678"]),
        ("525512345678", &["525512345678", "5215512345678"]),
        ("5491123456789", &["5491123456789", "541123456789"]),
        ("541123456789", &["541123456789", "5491123456789"]),
        // With what is dialled within the country.
        ("+52 044 55 1234 5678", &["525512345678", "5215512345678"]),
        ("+52 045 55 1234 5678", &["525512345678", "5215512345678"]),
        ("+54 11 15 2345-6789", &["5491123456789", "541123456789"]),
        ("+54 9 11 15 2345-6789", &["5491123456789", "541123456789"]),
        ("+54 011 15 2345-6789", &["5491123456789", "541123456789"]),
        ("+54 351 15 234-5678", &["5493512345678", "543512345678"]),
        ("+54 2966 15 23-4567", &["5492966234567", "542966234567"]),
        // None of these.
        ("4915112345678", &["4915112345678"]),
        ("5411162345678", &["5411162345678"]),
        ("54411512345678", &["54411512345678"]),
        ("12015550123", &["12015550123"]),
    ] {
        assert_eq!(forms(text), expected, "{text}");
    }
}

#[test]
fn a_person_goes_by_both_names() {
    let (number, lid) = (Person::parse("5511999998888").unwrap(), Person::parse("100@lid").unwrap());
    let known = Names { number: None, lid: Some(Lid::new("100").unwrap()) };
    let both = Names::of(number.clone(), known);
    assert!(both.are(&number) && both.are(&lid) && both.are(&Person::parse("551199998888").unwrap()));
    assert!(!both.are(&Person::parse("5511999998889").unwrap()) && !both.are(&Person::parse("101@lid").unwrap()));
    assert_eq!(both.people().collect::<Vec<_>>(), [number.clone(), lid.clone()]);
    let only_lid = Names::of(lid.clone(), Names::default());
    assert!(only_lid.are(&lid) && !only_lid.are(&number), "nobody knows whose it is");
    // The digits of a LID are not the LID.
    assert!(!both.are(&Person::Number(Number::kept("100").unwrap())));
}

#[test]
fn what_was_kept_before_numbers_were_checked_is_what_it_was() {
    for kept in ["5511999999999", "00393921234567", "713715344025739@lid"] {
        assert_eq!(Person::kept(kept).unwrap().address(), kept);
    }
    for damaged in ["", "x", "@lid", "1@g.us"] {
        assert!(Person::kept(damaged).is_none(), "{damaged}");
    }
}

#[test]
fn nothing_of_it_is_printed() {
    let address = Address::parse("713715344025739@lid").unwrap();
    let names = Names::of(Person::parse("5511999999999").unwrap(), Names::default());
    assert_eq!(format!("{address:?} {names:?} {:?}", names.number), "Address Names Some(Number)");
}

proptest! {
    /// Whatever comes: what is taken for a number has its digits, in their order, and no other sign than those above.
    #[test]
    fn any_text_is_an_address_or_not(text in ".{0,40}|[0-9+(). @:a-z/-]{0,40}") {
        match Address::parse(&text) {
            Ok(Address::Person(person)) => {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                let own: String = person.address().chars().filter(char::is_ascii_digit).collect();
                prop_assert!(digits.contains(&own), "{} of {:?}", own, text);
                prop_assert!(!text.contains(|c: char| c.is_alphabetic()) || text.contains('@') || text.contains(':') || text.contains('/'));
            }
            Ok(Address::Group(_)) => prop_assert!(text.to_lowercase().contains("@g.us")),
            Err(error) => prop_assert!(error.of("to").starts_with("`to` ")),
        }
    }

    #[test]
    fn an_address_can_be_given_back_as_it_was_told(digits in "[1-9][0-9]{7,14}", lid: bool) {
        let text = if lid { format!("{digits}@lid") } else { digits };
        let person = Person::parse(&text).unwrap();
        prop_assert_eq!(person.address(), text.as_str());
        prop_assert_eq!(Person::kept(&text), Some(person));
    }

    #[test]
    fn a_form_leads_back(digits in "5[245][1-9][0-9]{9,10}") {
        let number = Address::parse(&digits).unwrap().number().unwrap();
        for form in number.forms() {
            prop_assert!(form.may_be(&number) && number.may_be(&form));
        }
    }
}
