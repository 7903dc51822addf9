//! People by their names, as far as they are known here: nobody is asked.

use crate::{
    model::address::{Names, Person},
    session::outbox::Outbox,
    store::error::StoreError,
    whatsapp::lookup::with_learned,
};

/// LIDs have 14 digits and more; hardly any number has.
const LID_DIGITS: usize = 14;

impl Outbox {
    /// A person's names.
    pub(crate) async fn names_of(&self, person: &Person) -> Result<Names, StoreError> {
        let client = self.connection.live.lock().as_ref().map(|live| live.client.clone());
        match client {
            // It has them in memory.
            Some(client) => Ok(with_learned(&client, Names::of(person.clone(), Names::default())).await),
            None => self.store.names_of(&self.tenant, person).await,
        }
    }

    /// The field of the first of these that is taken for a number and is the LID of somebody whom the account knows: if there
    /// is such a number, it is a stranger's.
    pub(crate) async fn lid_among(
        &self,
        people: impl IntoIterator<Item = (&'static str, Person)>,
    ) -> Result<Option<&'static str>, StoreError> {
        let long = people.into_iter().filter_map(|(field, person)| match person {
            Person::Number(number) if number.digits().len() >= LID_DIGITS => Some((field, number.digits().to_owned())),
            _ => None,
        });
        let (fields, lids): (Vec<_>, Vec<_>) = long.unzip();
        if lids.is_empty() {
            return Ok(None);
        }
        let known = self.store.known_lid(&self.tenant, lids).await?;
        Ok(known.map(|place| fields[place]))
    }

    /// This person goes by these names: what is for any of them is in one queue.
    pub(crate) fn join(&self, person: &Person, names: &Names) {
        let mut lane = self.queue.lock();
        names.people().for_each(|name| lane.join(person, &name));
    }
}
