//! Backends by their numbers, which have twelve bits in tokens and in timestamps.

use ipc::id::BackendId;
use ipc::limits::MAX_NUMBER;

/// A place for every number, 0 included, which is nobody's.
const PLACES: usize = MAX_NUMBER as usize + 1;

/// Which backend has which number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(Box<[Option<BackendId>; PLACES]>);

impl Numbers {
    /// These backends by these numbers. Of two with one number the first counts; numbers past [`MAX_NUMBER`] do not.
    pub fn new(backends: impl IntoIterator<Item = (u16, BackendId)>) -> Self {
        let mut places = Box::new([None; PLACES]);
        for (number, backend) in backends.into_iter().filter(|(number, _)| *number != 0) {
            if let Some(place @ None) = places.get_mut(usize::from(number)) {
                *place = Some(backend);
            }
        }
        Self(places)
    }

    /// The backend with a number.
    #[inline]
    pub fn backend(&self, number: u16) -> Option<BackendId> {
        *self.0.get(usize::from(number))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_backends_or_nobodys() {
        let numbers =
            Numbers::new([(1, BackendId(9)), (4095, BackendId(8)), (1, BackendId(7)), (0, BackendId(6))]);
        let of = |number| numbers.backend(number);
        assert_eq!((of(1), of(4095)), (Some(BackendId(9)), Some(BackendId(8))));
        assert_eq!((of(0), of(2), of(4096), of(u16::MAX)), (None, None, None, None));
    }
}
