//! People by their names, as far as they are known here: nobody is asked.

use super::{
    numbers::with_learned,
    session::{Session, lock},
};
use crate::{
    address::{Names, Person},
    store::StoreError,
};

/// LIDs have 14 digits and more; hardly any number has.
const LID_DIGITS: usize = 14;

impl Session {
    /// A person's names.
    pub(super) async fn names_of(&self, person: &Person) -> Result<Names, StoreError> {
        let client = lock(&self.live).as_ref().map(|live| live.client.clone());
        match client {
            // It has them in memory.
            Some(client) => Ok(with_learned(&client, Names::of(person.clone(), Names::default())).await),
            None => self.around.store.names_of(&self.tenant, person).await,
        }
    }

    /// Whether what is taken for a number is the LID of somebody whom the account knows: then the number, if there is such
    /// a number, is a stranger's.
    pub(super) async fn is_lid(&self, person: &Person) -> Result<bool, StoreError> {
        match person {
            Person::Number(number) if number.digits().len() >= LID_DIGITS => {
                self.around.store.knows_lid(&self.tenant, number.digits()).await
            }
            _ => Ok(false),
        }
    }

    /// This person goes by these names: what is for any of them is in one queue.
    pub(super) fn join(&self, person: &Person, names: &Names) {
        let mut lane = lock(&self.lane);
        names.people().for_each(|name| lane.join(person, &name));
    }
}
