//! Who is on WhatsApp, and by which names: always the server's word, remembered for a while.
//!
//! Looking numbers up in bulk can get an account banned, so no number is asked for twice in a short time, and look-ups that
//! no message follows are counted.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use whatsapp_rust::{IsOnWhatsAppResult, Jid};

use crate::{
    model::address::{Lid, Names, Person, number::Number},
    whatsapp::client::Client,
};

/// How long somebody who is registered stays so, as far as we care.
const REGISTERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long somebody who is not registered is not asked for again.
const UNREGISTERED_FOR: Duration = Duration::from_secs(5 * 60);
/// How many addresses a session remembers.
const CAPACITY: usize = 10_000;

/// How many may be looked up at once, if none were before.
const AT_ONCE: u32 = 50;
/// How long it takes until one more may be.
const REFILL: Duration = Duration::from_secs(2);
/// How many numbers that have no answer among those of a query are asked for once more, each alone.
const ALONE: usize = 3;

/// What one session knows of numbers and LIDs. A person whose number and LID are known has one entry, under both.
#[derive(Default)]
pub struct Numbers {
    known: Mutex<HashMap<Person, Arc<OnceCell<Known>>>>,
    budget: Mutex<Budget>,
}

/// Why people could not be looked up.
#[derive(Debug, PartialEq, Eq)]
pub enum NotLookedUp {
    /// Too many were lately. So many may be after this time.
    TooMany(Duration),
    /// WhatsApp did not say.
    NoAnswer,
}

#[derive(Clone)]
struct Known {
    /// `None`: nobody is registered.
    names: Option<Names>,
    since: Instant,
}

/// The names of a person who is on WhatsApp, or that they are not; `None` if WhatsApp says neither.
type Answered = Option<Option<Names>>;

impl Numbers {
    /// The names that WhatsApp has for `to`; `None` where nobody is registered under them. Callers that ask for the same
    /// person at the same time share one look-up; one that failed is not remembered.
    pub async fn resolve(&self, client: &Client, to: &Person) -> Result<Option<Names>, NotLookedUp> {
        let known = self.entry(to);
        let asked = async || {
            let names = match to {
                Person::Number(number) => look_up(client, number).await?,
                Person::Lid(lid) => ask_for_lids(client, vec![lid.clone()]).await?.pop().flatten(),
            };
            Ok::<_, NotLookedUp>(Known { names, since: Instant::now() })
        };
        let names = known.get_or_try_init(asked).await?.names.clone();
        self.remember(to, &known);
        Ok(match names {
            Some(names) => Some(with_learned(client, names).await),
            None => None,
        })
    }

    /// The names of one person whom no message goes to now.
    pub async fn look_up_one(&self, client: &Client, to: &Person) -> Result<Option<Names>, NotLookedUp> {
        let mut found = self.look_up(client, std::slice::from_ref(to)).await?;
        Ok(found.pop().flatten())
    }

    /// The names of many people, in order. WhatsApp is asked for all that are not known in one query, and in another one
    /// for the other forms of the numbers that it does not know.
    pub async fn look_up(&self, client: &Client, people: &[Person]) -> Result<Vec<Option<Names>>, NotLookedUp> {
        let mut found =
            self.look_up_by(people, |numbers| ask(client, numbers), |lids| ask_for_lids(client, lids)).await?;
        for names in found.iter_mut().flatten() {
            *names = with_learned(client, std::mem::take(names)).await;
        }
        Ok(found)
    }

    /// The same, whoever is asked.
    async fn look_up_by<F, G>(
        &self,
        people: &[Person],
        ask: impl Fn(Vec<Number>) -> F,
        ask_for_lids: impl Fn(Vec<Lid>) -> G,
    ) -> Result<Vec<Option<Names>>, NotLookedUp>
    where
        F: Future<Output = Result<Vec<Answered>, NotLookedUp>>,
        G: Future<Output = Result<Vec<Option<Names>>, NotLookedUp>>,
    {
        let mut found: HashMap<Person, Option<Names>> = HashMap::new();
        let (mut numbers, mut lids): (Vec<Number>, Vec<Lid>) = (Vec::new(), Vec::new());
        for person in people {
            match (self.entry(person).get(), person) {
                (Some(known), _) => drop(found.insert(person.clone(), known.names.clone())),
                (None, Person::Number(number)) if !numbers.contains(number) => numbers.push(number.clone()),
                (None, Person::Lid(lid)) if !lids.contains(lid) => lids.push(lid.clone()),
                (None, _) => {}
            }
        }
        let unknown = numbers.len() + lids.len();
        if unknown > 0 {
            self.budget.lock().take(unknown, Instant::now()).map_err(NotLookedUp::TooMany)?;
        }
        let mut learn = |person: Person, names: Option<Names>| {
            self.learn(&person, names.clone());
            found.insert(person, names);
        };
        if !lids.is_empty() {
            let answers = ask_for_lids(lids.clone()).await?;
            lids.into_iter().zip(answers).for_each(|(lid, names)| learn(Person::Lid(lid), names));
        }
        let answers = self.look_up_numbers(&numbers, &ask).await?;
        let is_complete = answers.iter().all(Option::is_some);
        let answered = numbers.into_iter().zip(answers).filter_map(|(number, names)| Some((number, names?)));
        answered.for_each(|(number, names)| learn(Person::Number(number), names));
        // The rest is remembered: who asks again asks for less.
        if !is_complete {
            return Err(NotLookedUp::NoAnswer);
        }
        Ok(people.iter().map(|person| found.get(person).cloned().flatten()).collect())
    }

    /// Asks for all of these at once, in the form that comes first, and then for the other forms of those that nobody has.
    async fn look_up_numbers<F>(
        &self,
        numbers: &[Number],
        ask: &impl Fn(Vec<Number>) -> F,
    ) -> Result<Vec<Answered>, NotLookedUp>
    where
        F: Future<Output = Result<Vec<Answered>, NotLookedUp>>,
    {
        let mut answers: Vec<Answered> = vec![Some(None); numbers.len()];
        let mut left = ALONE;
        for form in 0.. {
            let open = answers.iter().zip(numbers).enumerate().filter(|(_, (answer, _))| **answer == Some(None));
            let open = open.filter_map(|(at, (_, number))| Some((at, number.forms().into_iter().nth(form)?)));
            let (places, asked): (Vec<usize>, Vec<Number>) = open.unzip();
            if asked.is_empty() {
                break;
            }
            if form > 0 {
                self.budget.lock().charge(asked.len(), Instant::now());
            }
            for (at, answer) in places.into_iter().zip(self.ask_all(asked, ask, &mut left).await?) {
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    /// Asks for all of these at once, and once more, alone, for each without an answer: the answers don't say to which
    /// question they are, and such a number may be known by one of quite another form. But a server that leaves out many
    /// is not asked for each of them. `None` where there is no answer.
    async fn ask_all<F>(
        &self,
        numbers: Vec<Number>,
        ask: &impl Fn(Vec<Number>) -> F,
        left: &mut usize,
    ) -> Result<Vec<Answered>, NotLookedUp>
    where
        F: Future<Output = Result<Vec<Answered>, NotLookedUp>>,
    {
        let mut answers = ask(numbers.clone()).await?;
        if numbers.len() == 1 {
            return Ok(answers);
        }
        for (number, answer) in numbers.into_iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if *left == 0 {
                break;
            }
            *left -= 1;
            self.budget.lock().charge(1, Instant::now());
            *answer = ask(vec![number]).await?.pop().flatten();
        }
        Ok(answers)
    }

    fn entry(&self, person: &Person) -> Arc<OnceCell<Known>> {
        let mut known = self.known.lock();
        if known.len() >= CAPACITY {
            // Rare enough that forgetting everything costs less than keeping order.
            known.clear();
        }
        let entry = known.entry(person.clone()).or_default();
        if entry.get().is_some_and(Known::is_old) {
            *entry = Arc::default();
        }
        entry.clone()
    }

    fn learn(&self, person: &Person, names: Option<Names>) {
        let entry = self.entry(person);
        // Somebody may have learned the same meanwhile.
        let _ = entry.set(Known { names, since: Instant::now() });
        self.remember(person, &entry);
    }

    /// What is known of a person is known under each of their names.
    fn remember(&self, person: &Person, entry: &Arc<OnceCell<Known>>) {
        let Some(names) = entry.get().and_then(|known| known.names.as_ref()) else { return };
        let mut known = self.known.lock();
        for name in names.people().filter(|name| name != person) {
            known.insert(name, entry.clone());
        }
    }
}

impl Known {
    fn is_old(&self) -> bool {
        let lifetime = if self.names.is_some() { REGISTERED_FOR } else { UNREGISTERED_FOR };
        self.since.elapsed() >= lifetime
    }
}

/// The address to send to, for a person who was asked for by this name: a LID stays with its person, a number may get
/// another owner.
pub fn jid(asked: &Person, names: &Names) -> Jid {
    match (asked, names) {
        (Person::Lid(lid), _) => Jid::lid(lid.digits()),
        (Person::Number(_), Names { number: Some(number), .. }) => Jid::pn(number.digits()),
        (Person::Number(_), Names { lid: Some(lid), .. }) => Jid::lid(lid.digits()),
        (Person::Number(number), _) => Jid::pn(number.digits()),
    }
}

/// WhatsApp's address of a number.
pub fn number_address(number: &str) -> String {
    Jid::pn(number).to_string()
}

/// WhatsApp's address of a LID.
pub fn lid_address(lid: &str) -> String {
    Jid::lid(lid).to_string()
}

/// The number or the LID in one of WhatsApp's addresses.
pub fn names_in(address: &str) -> (Option<String>, Option<String>) {
    let jid = address.parse::<Jid>().unwrap_or_default().to_non_ad();
    (jid.is_pn().then(|| jid.user.to_string()), jid.is_lid().then(|| jid.user.to_string()))
}

/// WhatsApp's address of a person by this name.
pub fn address(person: &Person) -> String {
    jid(person, &Names::default()).to_string()
}

async fn look_up(client: &Client, number: &Number) -> Result<Option<Names>, NotLookedUp> {
    for form in number.forms() {
        match ask(client, vec![form]).await?.pop().flatten() {
            Some(None) => {}
            Some(found) => return Ok(found),
            None => return Err(NotLookedUp::NoAnswer),
        }
    }
    Ok(None)
}

/// What WhatsApp says of one number.
struct Answer {
    names: Names,
    registered: bool,
    failed: bool,
}

impl From<IsOnWhatsAppResult> for Answer {
    fn from(result: IsOnWhatsAppResult) -> Self {
        let jids = [Some(&result.jid), result.pn_jid.as_ref(), result.lid.as_ref()];
        let number = jids.into_iter().flatten().find(|jid| jid.is_pn()).and_then(|jid| Number::of_whatsapp(&jid.user));
        let lid = jids.into_iter().flatten().find(|jid| jid.is_lid()).and_then(|jid| Lid::new(&jid.user));
        let (registered, failed) = (result.is_registered, result.contact_error.is_some());
        Self { names: Names { number, lid }, registered, failed }
    }
}

impl Answer {
    fn is_for(&self, number: &Number) -> bool {
        self.names.number.as_ref() == Some(number)
    }

    fn names(self) -> Option<Names> {
        self.registered.then_some(self.names)
    }
}

/// Asks for all of these at once. The answers are in the order of the questions.
async fn ask(client: &Client, numbers: Vec<Number>) -> Result<Vec<Answered>, NotLookedUp> {
    let asked: Vec<_> = numbers.iter().map(|number| Jid::pn(number.digits())).collect();
    // What the library says of a failure is not repeated: it may name people.
    let answers = client.library().contacts().is_on_whatsapp(&asked).await.map_err(|_| NotLookedUp::NoAnswer)?;
    let answers: Vec<_> = answers.into_iter().map(Answer::from).collect();
    if answers.iter().any(|answer| answer.failed) {
        return Err(NotLookedUp::NoAnswer);
    }
    Ok(in_order(&numbers, answers).into_iter().map(|answer| answer.map(Answer::names)).collect())
}

/// The names of these, if they are somebody's: whoever has devices is registered. Where the devices are known already,
/// nobody is asked.
async fn ask_for_lids(client: &Client, lids: Vec<Lid>) -> Result<Vec<Option<Names>>, NotLookedUp> {
    let asked: Vec<_> = lids.iter().map(|lid| Jid::lid(lid.digits())).collect();
    let devices = client.library().signal().get_user_devices(&asked).await.map_err(|_| NotLookedUp::NoAnswer)?;
    let is_there = |lid: &Lid| devices.iter().any(|jid| jid.server.is_lid_family() && jid.user == lid.digits());
    Ok(lids.iter().map(|lid| is_there(lid).then(|| Names { number: None, lid: Some(lid.clone()) })).collect())
}

/// A person's names with what the account has learned meanwhile: many messages tell both.
pub async fn with_learned(client: &Client, mut names: Names) -> Names {
    let jid = match &names {
        Names { number: None, lid: Some(lid) } => Jid::lid(lid.digits()),
        Names { number: Some(number), lid: None } => Jid::pn(number.digits()),
        _ => return names,
    };
    if let Ok(Some(entry)) = client.library().get_lid_pn_entry(&jid).await {
        names.number = names.number.or_else(|| Number::of_whatsapp(&entry.phone_number));
        names.lid = names.lid.or_else(|| Lid::new(&entry.lid));
    }
    names
}

/// The answer to each question: the one for this number, or for another form of it. One question has one answer.
fn in_order(numbers: &[Number], answers: Vec<Answer>) -> Vec<Option<Answer>> {
    if numbers.len() == 1 {
        return vec![answers.into_iter().next()];
    }
    let mut answers: Vec<_> = answers.into_iter().map(Some).collect();
    let mut take = |number: &Number| {
        let is_for = |answer: &&mut Option<Answer>| answer.as_ref().is_some_and(|answer| answer.is_for(number));
        answers.iter_mut().find(is_for).and_then(Option::take)
    };
    // All that are answered as they were asked come first: two forms of one number may have been asked for.
    let mut ordered: Vec<_> = numbers.iter().map(&mut take).collect();
    for (place, number) in ordered.iter_mut().zip(numbers).filter(|(place, _)| place.is_none()) {
        *place = number.forms().iter().find_map(&mut take);
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
mod tests;
