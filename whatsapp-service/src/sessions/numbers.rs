//! Which numbers are on WhatsApp, and under which form: always the server's word, remembered for a while.
//!
//! Looking numbers up in bulk can get an account banned, so no number is asked for twice in a short time, and look-ups that
//! no message follows are counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;
use whatsapp_rust::{Client, IsOnWhatsAppResult, Jid};

use super::{recipient::Recipient, session::lock};

/// How long a number that is registered stays so, as far as we care.
const REGISTERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a number that is not registered is not asked for again.
const UNREGISTERED_FOR: Duration = Duration::from_secs(5 * 60);
/// How many numbers a session remembers.
const CAPACITY: usize = 10_000;

/// How many numbers may be looked up at once, if none were before.
const AT_ONCE: u32 = 50;
/// How long it takes until one more may be.
const REFILL: Duration = Duration::from_secs(2);
/// How many numbers that have no answer among those of a query are asked for once more, each alone.
const ALONE: usize = 3;

/// What one session knows of numbers.
#[derive(Default)]
pub struct Numbers {
    known: Mutex<HashMap<Recipient, Arc<OnceCell<Known>>>>,
    budget: Mutex<Budget>,
}

/// Why numbers could not be looked up.
#[derive(Debug, PartialEq, Eq)]
pub enum NotLookedUp {
    /// Too many were lately. So many may be after this time.
    TooMany(Duration),
    /// WhatsApp did not say.
    NoAnswer,
}

#[derive(Clone)]
struct Known {
    /// `None`: nobody is registered under this number.
    jid: Option<Jid>,
    since: Instant,
}

impl Numbers {
    /// The address that WhatsApp has for `to`; `None` where nobody is registered under any of its forms. Callers that
    /// ask for the same number at the same time share one look-up; one that failed is not remembered.
    pub async fn resolve(&self, client: &Client, to: &Recipient) -> Result<Option<Jid>, String> {
        let known = self.entry(to);
        let found = known.get_or_try_init(async || {
            let mut jid = look_up(client, to.digits()).await?;
            if jid.is_none()
                && let Some(other) = to.other_form()
            {
                jid = look_up(client, &other).await?;
            }
            Ok::<_, String>(Known { jid, since: Instant::now() })
        });
        Ok(found.await?.jid.clone())
    }

    /// The address of one number that no message goes to now.
    pub async fn look_up_one(&self, client: &Client, to: &Recipient) -> Result<Option<Jid>, NotLookedUp> {
        let mut found = self.look_up(client, std::slice::from_ref(to)).await?;
        Ok(found.pop().flatten())
    }

    /// The addresses of many numbers, in order. WhatsApp is asked for all that are not known in one query, and in another
    /// one for the other forms of those that it does not know.
    pub async fn look_up(&self, client: &Client, numbers: &[Recipient]) -> Result<Vec<Option<Jid>>, NotLookedUp> {
        self.look_up_by(numbers, |asked| ask(client, asked)).await
    }

    /// The same, whoever is asked.
    async fn look_up_by<F>(
        &self,
        numbers: &[Recipient],
        ask: impl Fn(Vec<String>) -> F,
    ) -> Result<Vec<Option<Jid>>, NotLookedUp>
    where
        F: Future<Output = Result<Vec<Answered>, NotLookedUp>>,
    {
        let mut found: HashMap<&Recipient, Option<Jid>> = HashMap::new();
        let mut unknown: Vec<&Recipient> = Vec::new();
        for number in numbers {
            match self.entry(number).get() {
                Some(known) => drop(found.insert(number, known.jid.clone())),
                None if unknown.contains(&number) => {}
                None => unknown.push(number),
            }
        }
        if !unknown.is_empty() {
            lock(&self.budget).take(unknown.len(), Instant::now()).map_err(NotLookedUp::TooMany)?;
            let asked: Vec<_> = unknown.iter().map(|number| number.digits().to_owned()).collect();
            let mut left = ALONE;
            let mut answers = self.ask_all(asked, &ask, &mut left).await?;
            let others = unknown.iter().zip(&answers).enumerate().filter(|(_, (_, jid))| **jid == Some(None));
            let others = others.filter_map(|(at, (number, _))| Some((at, number.other_form()?)));
            let (places, others): (Vec<usize>, Vec<String>) = others.unzip();
            if !others.is_empty() {
                lock(&self.budget).charge(others.len(), Instant::now());
                for (at, jid) in places.into_iter().zip(self.ask_all(others, &ask, &mut left).await?) {
                    answers[at] = jid;
                }
            }
            let is_complete = answers.iter().all(Option::is_some);
            for (number, jid) in unknown.into_iter().zip(answers).filter_map(|(number, jid)| Some((number, jid?))) {
                // Somebody may have learned the same meanwhile.
                let _ = self.entry(number).set(Known { jid: jid.clone(), since: Instant::now() });
                found.insert(number, jid);
            }
            // The rest is remembered: who asks again asks for less.
            if !is_complete {
                return Err(NotLookedUp::NoAnswer);
            }
        }
        Ok(numbers.iter().map(|number| found.get(number).cloned().flatten()).collect())
    }

    /// Asks for all of these at once, and once more, alone, for each without an answer: the answers don't say to which
    /// question they are, and such a number may be known by one of quite another form. But a server that leaves out many
    /// is not asked for each of them. `None` where there is no answer.
    async fn ask_all<F>(
        &self,
        numbers: Vec<String>,
        ask: &impl Fn(Vec<String>) -> F,
        left: &mut usize,
    ) -> Result<Vec<Answered>, NotLookedUp>
    where
        F: Future<Output = Result<Vec<Answered>, NotLookedUp>>,
    {
        let mut answers = ask(numbers.clone()).await?;
        if numbers.len() == 1 {
            return Ok(answers);
        }
        for (digits, answer) in numbers.into_iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if *left == 0 {
                break;
            }
            *left -= 1;
            lock(&self.budget).charge(1, Instant::now());
            *answer = ask(vec![digits]).await?.pop().flatten();
        }
        Ok(answers)
    }

    fn entry(&self, to: &Recipient) -> Arc<OnceCell<Known>> {
        let mut known = lock(&self.known);
        if known.len() >= CAPACITY {
            // Rare enough that forgetting everything costs less than keeping order.
            known.clear();
        }
        let entry = known.entry(to.clone()).or_default();
        if entry.get().is_some_and(Known::is_old) {
            *entry = Arc::default();
        }
        entry.clone()
    }
}

impl Known {
    fn is_old(&self) -> bool {
        let lifetime = if self.jid.is_some() { REGISTERED_FOR } else { UNREGISTERED_FOR };
        self.since.elapsed() >= lifetime
    }
}

async fn look_up(client: &Client, digits: &str) -> Result<Option<Jid>, String> {
    let answers = client.contacts().is_on_whatsapp(&[Jid::pn(digits)]).await.map_err(|error| error.to_string())?;
    match answers.into_iter().next() {
        None => Err("the server did not answer for this number".into()),
        Some(IsOnWhatsAppResult { contact_error: Some(error), .. }) => Err(format!("{error:?}")),
        Some(answer) => Ok(Answer::from(answer).address()),
    }
}

/// The address of a number, or that nobody is registered under it; `None` if WhatsApp says neither.
type Answered = Option<Option<Jid>>;

/// What WhatsApp says of one number.
struct Answer {
    jid: Jid,
    /// The number, where `jid` is another name.
    number: Option<Jid>,
    registered: bool,
    failed: bool,
}

impl From<IsOnWhatsAppResult> for Answer {
    fn from(result: IsOnWhatsAppResult) -> Self {
        let (registered, failed) = (result.is_registered, result.contact_error.is_some());
        Self { jid: result.jid, number: result.pn_jid, registered, failed }
    }
}

impl Answer {
    fn is_for(&self, digits: &str) -> bool {
        self.jid.user == digits || self.number.as_ref().is_some_and(|number| number.user == digits)
    }

    fn address(self) -> Option<Jid> {
        let Self { jid, number, registered, .. } = self;
        registered.then(|| if jid.is_lid() { number.unwrap_or(jid) } else { jid })
    }
}

/// Asks for all of these at once. The answers are in the order of the questions.
async fn ask(client: &Client, numbers: Vec<String>) -> Result<Vec<Answered>, NotLookedUp> {
    let asked: Vec<_> = numbers.iter().map(|digits| Jid::pn(digits.as_str())).collect();
    // What the library says of a failure is not repeated: it may name people.
    let answers = client.contacts().is_on_whatsapp(&asked).await.map_err(|_| NotLookedUp::NoAnswer)?;
    let answers: Vec<_> = answers.into_iter().map(Answer::from).collect();
    if answers.iter().any(|answer| answer.failed) {
        return Err(NotLookedUp::NoAnswer);
    }
    Ok(in_order(&numbers, answers).into_iter().map(|answer| answer.map(Answer::address)).collect())
}

/// The answer to each question: the one for this number, or for another form of it. One question has one answer.
fn in_order(numbers: &[String], answers: Vec<Answer>) -> Vec<Option<Answer>> {
    if numbers.len() == 1 {
        return vec![answers.into_iter().next()];
    }
    let mut answers: Vec<_> = answers.into_iter().map(Some).collect();
    let mut take = |digits: &str| {
        let is_for = |answer: &&mut Option<Answer>| answer.as_ref().is_some_and(|answer| answer.is_for(digits));
        answers.iter_mut().find(is_for).and_then(Option::take)
    };
    // All that are answered as they were asked come first: two forms of one number may have been asked for.
    let mut ordered: Vec<_> = numbers.iter().map(|digits| take(digits)).collect();
    for (place, digits) in ordered.iter_mut().zip(numbers).filter(|(place, _)| place.is_none()) {
        let other = Recipient::parse(digits).ok().and_then(|number| number.other_form());
        *place = other.and_then(|other| take(&other));
    }
    ordered
}

/// How many look-ups a session may make now.
struct Budget {
    /// When it is full again: what was taken is put off to then.
    full_at: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { full_at: Instant::now() }
    }
}

impl Budget {
    /// Takes so many, or says how long it takes until there are so many.
    fn take(&mut self, wanted: usize, now: Instant) -> Result<(), Duration> {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(AT_ONCE);
        let missing = self.full_at.saturating_duration_since(now);
        // What may be missing at most, so that there is enough.
        match missing.checked_sub(REFILL * (AT_ONCE - wanted)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.charge(wanted as usize, now);
                Ok(())
            }
        }
    }

    /// Takes so many, though they may not be there yet: the next ones wait longer.
    fn charge(&mut self, count: usize, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(AT_ONCE);
        self.full_at = self.full_at.max(now) + REFILL * count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(digits: &str, registered: bool) -> Answer {
        Answer { jid: Jid::pn(digits), number: None, registered, failed: false }
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
        // Two forms of one number, one that is known by its other form, one without an account, one without an answer.
        let numbers = ["5511988888888", "551188888888", "5215512345678", "4915112345678", "4915100000000"];
        let numbers = numbers.map(str::to_owned);
        let answers = vec![
            answer("4915112345678", false),
            answer("525512345678", true),
            answer("551188888888", true),
            answer("5511988888888", true),
        ];
        let ordered = in_order(&numbers, answers);
        let users: Vec<_> = ordered.iter().map(|one| one.as_ref().map(|one| one.jid.user.to_string())).collect();
        let user = |digits: &str| Some(digits.to_owned());
        let expected = [user("5511988888888"), user("551188888888"), user("525512345678"), user("4915112345678"), None];
        assert_eq!(users, expected);
        assert_eq!(ordered.into_iter().flatten().filter_map(Answer::address).count(), 3);
        // Whoever asks for one number has its answer, whatever it is called there.
        let alone = in_order(&numbers[..1], vec![answer("393331234567", true)]);
        assert_eq!(alone[0].as_ref().map(|one| one.jid.user.to_string()), user("393331234567"));
    }

    #[test]
    fn only_so_many_numbers_are_remembered() {
        let numbers = Numbers::default();
        for n in 0..=CAPACITY {
            numbers.entry(&Recipient::parse(&format!("49151{n:08}")).unwrap());
            assert!(lock(&numbers.known).len() <= CAPACITY);
        }
    }

    #[tokio::test]
    async fn all_that_is_not_known_is_asked_for_at_once_and_other_forms_after_it() {
        let (numbers, queries) = (Numbers::default(), Mutex::new(Vec::new()));
        // Known by the form without the ninth digit, known as it is written, not known in any form.
        let registered = ["551188887777", "4915112345678"];
        let ask = |asked: Vec<String>| {
            let known = |digits: &String| registered.contains(&digits.as_str()).then(|| Jid::pn(digits.as_str()));
            let answers: Vec<_> = asked.iter().map(known).map(Some).collect();
            lock(&queries).push(asked);
            async { Ok::<_, NotLookedUp>(answers) }
        };
        let of = |digits: &[&str]| -> Vec<_> { digits.iter().map(|one| Recipient::parse(one).unwrap()).collect() };
        let users = |found: Vec<Option<Jid>>| -> Vec<_> {
            found.into_iter().map(|jid| jid.map(|jid| jid.user.to_string()).unwrap_or_default()).collect()
        };
        let first = of(&["5511988887777", "4915112345678", "5511977776666", "4915112345678"]);
        let found = numbers.look_up_by(&first, ask).await.unwrap();
        assert_eq!(users(found), ["551188887777", "4915112345678", "", "4915112345678"]);
        let asked = [vec!["5511988887777", "4915112345678", "5511977776666"], vec!["551188887777", "551177776666"]];
        assert_eq!(std::mem::take(&mut *lock(&queries)), asked);
        // Five are gone. What is known takes none.
        let found = numbers.look_up_by(&first, ask).await.unwrap();
        assert_eq!((found.iter().flatten().count(), lock(&queries).len()), (3, 0));
        let many: Vec<_> = (0..50).map(|n| format!("49151000000{n:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let refused = numbers.look_up_by(&of(&many), ask).await;
        assert!(matches!(refused, Err(NotLookedUp::TooMany(wait)) if wait <= REFILL * 5), "{refused:?}");
        assert!(lock(&queries).is_empty(), "WhatsApp was not asked");
        assert!(numbers.look_up_by(&of(&many[..45]), ask).await.is_ok());
        // A failure is not remembered.
        let fails = |_| async { Err(NotLookedUp::NoAnswer) };
        let late = Numbers::default();
        assert_eq!(late.look_up_by(&of(&registered), fails).await.err(), Some(NotLookedUp::NoAnswer));
        assert_eq!(late.look_up_by(&of(&registered), ask).await.unwrap().iter().flatten().count(), 2);
    }

    #[tokio::test]
    async fn what_a_server_leaves_out_is_asked_for_a_few_times_and_counted() {
        let (numbers, queries) = (Numbers::default(), Mutex::new(Vec::new()));
        // It answers for the first half of the numbers, and for each that it is asked for alone.
        let ask = |asked: Vec<String>| {
            let answer =
                |(at, digits): (usize, &String)| (at < asked.len().div_ceil(2)).then(|| Some(Jid::pn(digits.as_str())));
            let answers: Vec<_> = asked.iter().enumerate().map(answer).collect();
            lock(&queries).push(asked.len());
            async { Ok::<_, NotLookedUp>(answers) }
        };
        let many: Vec<_> = (0..20).map(|n| Recipient::parse(&format!("49151000000{n:02}")).unwrap()).collect();
        let start = Instant::now();
        assert_eq!(numbers.look_up_by(&many, ask).await, Err(NotLookedUp::NoAnswer));
        assert_eq!(std::mem::take(&mut *lock(&queries)), [20, 1, 1, 1]);
        let owed = lock(&numbers.budget).full_at.duration_since(start).as_secs_f64() / REFILL.as_secs_f64();
        assert!((23.0..24.0).contains(&owed), "each is counted: {owed}");
        // What it did say is known.
        assert_eq!(numbers.look_up_by(&many, ask).await.unwrap().into_iter().flatten().count(), 20);
        assert_eq!(std::mem::take(&mut *lock(&queries)), [7, 1, 1, 1]);
        // A server that says nothing at all is not asked again and again.
        let silent = |asked: Vec<String>| {
            lock(&queries).push(asked.len());
            async move { Ok(vec![None; asked.len()]) }
        };
        let late = Numbers::default();
        assert_eq!(late.look_up_by(&many, silent).await, Err(NotLookedUp::NoAnswer));
        assert_eq!(late.look_up_by(&many[..1], silent).await, Err(NotLookedUp::NoAnswer));
        assert_eq!(*lock(&queries), [20, 1, 1, 1, 1]);
    }
}
