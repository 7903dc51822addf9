use super::*;

fn number(digits: &str) -> Number {
    Number::of_whatsapp(digits).unwrap()
}

fn by_number(digits: &str) -> Person {
    Person::Number(number(digits))
}

fn names(digits: &str) -> Names {
    Names { number: Some(number(digits)), lid: None }
}

fn answer(digits: &str, registered: bool) -> Answer {
    Answer { names: names(digits), registered, failed: false }
}

/// The numbers of those who were found, or nothing.
fn digits(found: Vec<Option<Names>>) -> Vec<String> {
    let digits = |names: Names| names.number.map(|number| number.digits().to_owned());
    found.into_iter().map(|names| names.and_then(digits).unwrap_or_default()).collect()
}

async fn no_lids(_: Vec<Lid>) -> Result<Vec<Option<Names>>, NotLookedUp> {
    panic!("there are none")
}

#[test]
fn fifty_at_once_and_one_every_two_seconds() {
    let start = Instant::now();
    let mut budget = Budget { full_at: start };
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(budget.take(30, start), Ok(()));
    assert_eq!(budget.take(20, start), Ok(()));
    assert_eq!(budget.take(1, start), Err(Duration::from_secs(2)));
    assert_eq!(budget.take(1, after(1)), Err(Duration::from_secs(1)), "who was refused has taken nothing");
    assert_eq!(budget.take(1, after(2)), Ok(()));
    assert_eq!(budget.take(50, after(2)), Err(Duration::from_secs(100)));
    assert_eq!(budget.take(50, after(1000)), Ok(()), "it fills, and does not overflow");
    assert_eq!(budget.take(1, after(1000)), Err(Duration::from_secs(2)));
    budget.charge(10, after(1000));
    assert_eq!(budget.take(1, after(1000)), Err(Duration::from_secs(22)), "what was not there is owed");
}

#[test]
fn every_question_gets_its_own_answer() {
    // Two forms of one number, one that is known by its other form, one without an account, one without an answer, and
    // one whose digits are a LID of somebody else.
    let numbers =
        ["5511988888888", "551188888888", "5215512345678", "4915112345678", "4915100000000", "713715344025739"];
    let numbers = numbers.map(number);
    let stranger = Names { number: Some(number("12015550123")), lid: Lid::new("713715344025739") };
    let answers = vec![
        Answer { names: stranger, registered: true, failed: false },
        answer("4915112345678", false),
        answer("525512345678", true),
        answer("551188888888", true),
        answer("5511988888888", true),
    ];
    let ordered = in_order(&numbers, answers);
    let found = |answer: &Option<Answer>| answer.as_ref().and_then(|one| one.names.number.clone());
    let expected = ["5511988888888", "551188888888", "525512345678", "4915112345678"].map(number).map(Some);
    assert_eq!(ordered.iter().map(found).collect::<Vec<_>>(), [&expected[..], &[None, None]].concat());
    assert_eq!(ordered.into_iter().flatten().filter_map(Answer::names).count(), 3);
    // Whoever asks for one number has its answer, whatever it is called there.
    let alone = in_order(&numbers[..1], vec![answer("393331234567", true)]);
    assert_eq!(found(&alone[0]), Some(number("393331234567")));
}

#[test]
fn a_lid_is_written_to_as_such_and_a_number_as_what_whatsapp_has_for_it() {
    let both = Names { number: Some(number("551188888888")), lid: Lid::new("100") };
    let lid = Person::parse("100@lid").unwrap();
    assert_eq!(jid(&lid, &both), Jid::lid("100"), "whoever may have the number by now");
    assert_eq!(jid(&by_number("5511988888888"), &both), Jid::pn("551188888888"));
    let only_lid = Names { number: None, ..both };
    assert_eq!(jid(&by_number("5511988888888"), &only_lid), Jid::lid("100"));
}

#[test]
fn only_so_many_people_are_remembered() {
    let numbers = Numbers::default();
    for n in 0..=CAPACITY {
        numbers.entry(&by_number(&format!("49151{n:08}")));
        assert!(numbers.known.lock().len() <= CAPACITY);
    }
}

#[tokio::test]
async fn who_is_looked_up_by_one_name_is_known_by_the_others() {
    let (numbers, queries) = (Numbers::default(), Mutex::new(0));
    let both = Names { number: Some(number("551188887777")), lid: Lid::new("100") };
    let ask = |asked: Vec<Number>| {
        *queries.lock() += 1;
        let both = both.clone();
        async move { Ok(asked.iter().map(|_| Some(Some(both.clone()))).collect()) }
    };
    let people = [by_number("5511988887777")];
    assert_eq!(numbers.look_up_by(&people, ask, no_lids).await.unwrap(), [Some(both.clone())]);
    let people = ["5511988887777", "551188887777", "100@lid"].map(|name| Person::parse(name).unwrap());
    let found = numbers.look_up_by(&people, ask, no_lids).await.unwrap();
    assert!(found.iter().all(|names| names.as_ref() == Some(&both)));
    assert_eq!(*queries.lock(), 1, "one entry for all of them");
    let entries = people.map(|name| numbers.entry(&name));
    assert!(entries.iter().all(|entry| Arc::ptr_eq(entry, &entries[0])));
    // LIDs are counted like numbers.
    let unknown: Vec<_> = (0..49).map(|n| Person::Lid(Lid::new(&format!("2{n:02}")).unwrap())).collect();
    let nobody = |lids: Vec<Lid>| async move { Ok(vec![None; lids.len()]) };
    assert!(numbers.look_up_by(&unknown, ask, nobody).await.unwrap().iter().all(Option::is_none));
    let one_more = [Person::parse("300@lid").unwrap()];
    assert!(matches!(numbers.look_up_by(&one_more, ask, nobody).await, Err(NotLookedUp::TooMany(_))));
    assert!(numbers.look_up_by(&unknown, ask, no_lids).await.is_ok(), "that nobody is there is remembered too");
}

#[tokio::test]
async fn all_that_is_not_known_is_asked_for_at_once_and_other_forms_after_it() {
    let (numbers, queries) = (Numbers::default(), Mutex::new(Vec::new()));
    // Known by the form without the ninth digit, known as it is written, known without what is dialled in its country.
    let registered = ["551188887777", "4915112345678", "541123456789"].map(number);
    let ask = |asked: Vec<Number>| {
        let known = |one: &Number| registered.contains(one).then(|| names(one.digits()));
        let answers: Vec<_> = asked.iter().map(known).map(Some).collect();
        queries.lock().push(asked.iter().map(|one| one.digits().to_owned()).collect::<Vec<_>>());
        async { Ok::<_, NotLookedUp>(answers) }
    };
    let of = |digits: &[&str]| -> Vec<_> { digits.iter().map(|one| by_number(one)).collect() };
    let first = of(&["5511988887777", "4915112345678", "5511977776666", "4915112345678", "54111523456789"]);
    let found = numbers.look_up_by(&first, ask, no_lids).await.unwrap();
    assert_eq!(digits(found), ["551188887777", "4915112345678", "", "4915112345678", "541123456789"]);
    let asked = [
        vec!["5511988887777", "4915112345678", "5511977776666", "5491123456789"],
        vec!["551188887777", "551177776666", "541123456789"],
    ];
    assert_eq!(std::mem::take(&mut *queries.lock()), asked);
    // Seven are gone. What is known takes none.
    let found = numbers.look_up_by(&first, ask, no_lids).await.unwrap();
    assert_eq!((found.iter().flatten().count(), queries.lock().len()), (4, 0));
    let many: Vec<_> = (0..50).map(|n| format!("49151000000{n:02}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let refused = numbers.look_up_by(&of(&many), ask, no_lids).await;
    assert!(matches!(refused, Err(NotLookedUp::TooMany(wait)) if wait <= REFILL * 7), "{refused:?}");
    assert!(queries.lock().is_empty(), "WhatsApp was not asked");
    assert!(numbers.look_up_by(&of(&many[..43]), ask, no_lids).await.is_ok());
    // A failure is not remembered.
    let fails = |_| async { Err(NotLookedUp::NoAnswer) };
    let (late, known) = (Numbers::default(), of(&["551188887777", "4915112345678"]));
    assert_eq!(late.look_up_by(&known, fails, no_lids).await.err(), Some(NotLookedUp::NoAnswer));
    assert_eq!(late.look_up_by(&known, ask, no_lids).await.unwrap().iter().flatten().count(), 2);
}

#[tokio::test]
async fn what_a_server_leaves_out_is_asked_for_a_few_times_and_counted() {
    let (numbers, queries) = (Numbers::default(), Mutex::new(Vec::new()));
    // It answers for the first half of the numbers, and for each that it is asked for alone.
    let ask = |asked: Vec<Number>| {
        let half = asked.len().div_ceil(2);
        let answer = |(at, one): (usize, &Number)| (at < half).then(|| Some(names(one.digits())));
        let answers: Vec<_> = asked.iter().enumerate().map(answer).collect();
        queries.lock().push(asked.len());
        async { Ok::<_, NotLookedUp>(answers) }
    };
    let many: Vec<_> = (0..20).map(|n| by_number(&format!("49151000000{n:02}"))).collect();
    let start = Instant::now();
    assert_eq!(numbers.look_up_by(&many, ask, no_lids).await, Err(NotLookedUp::NoAnswer));
    assert_eq!(std::mem::take(&mut *queries.lock()), [20, 1, 1, 1]);
    let owed = numbers.budget.lock().full_at.duration_since(start).as_secs_f64() / REFILL.as_secs_f64();
    assert!((23.0..24.0).contains(&owed), "each is counted: {owed}");
    // What it did say is known.
    assert_eq!(numbers.look_up_by(&many, ask, no_lids).await.unwrap().into_iter().flatten().count(), 20);
    assert_eq!(std::mem::take(&mut *queries.lock()), [7, 1, 1, 1]);
    // A server that says nothing at all is not asked again and again.
    let silent = |asked: Vec<Number>| {
        queries.lock().push(asked.len());
        async move { Ok(vec![None; asked.len()]) }
    };
    let late = Numbers::default();
    assert_eq!(late.look_up_by(&many, silent, no_lids).await, Err(NotLookedUp::NoAnswer));
    assert_eq!(late.look_up_by(&many[..1], silent, no_lids).await, Err(NotLookedUp::NoAnswer));
    assert_eq!(*queries.lock(), [20, 1, 1, 1, 1]);
}
