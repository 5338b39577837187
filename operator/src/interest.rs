//! Which objects look at which Secrets, ConfigMaps and namespaces: whom to wake when one of these changes.

use kube::runtime::reflector::ObjectRef;
use siforge_crds::SingularityImage;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

type Image = ObjectRef<SingularityImage>;

/// Something that an object's spec names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Thing {
    Secret {
        namespace: String,
        name: String,
    },
    ConfigMap {
        namespace: String,
        name: String,
    },
    /// The labels of all namespaces (a selector).
    Namespaces,
}

#[derive(Default)]
struct Both {
    of: HashMap<Image, HashSet<Thing>>,
    by: HashMap<Thing, HashSet<Image>>,
}

#[derive(Default)]
pub(crate) struct Interest(Mutex<Both>);

impl Interest {
    /// Replaces what `image` looks at; empty when it is gone.
    pub(crate) fn set(&self, image: &Image, things: HashSet<Thing>) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match things.is_empty() {
            true => both.of.remove(image),
            false => both.of.insert(image.clone(), things.clone()),
        }
        .unwrap_or_default();
        for thing in before.difference(&things) {
            if let Some(images) = both.by.get_mut(thing) {
                images.remove(image);
                if images.is_empty() {
                    both.by.remove(thing);
                }
            }
        }
        for thing in things {
            both.by.entry(thing).or_default().insert(image.clone());
        }
    }

    pub(crate) fn of(&self, thing: &Thing) -> Vec<Image> {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        both.by.get(thing).map(|images| images.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_changes() {
        let interest = Interest::default();
        let image = |name: &str| Image::new(name).within("lab");
        let secret = |name: &str| Thing::Secret { namespace: "lab".to_owned(), name: name.to_owned() };
        interest.set(&image("a"), HashSet::from([secret("x"), secret("y")]));
        interest.set(&image("b"), HashSet::from([secret("x")]));
        assert_eq!(interest.of(&secret("x")).len(), 2);
        interest.set(&image("a"), HashSet::from([secret("y")]));
        assert_eq!(interest.of(&secret("x")), [image("b")]);
        interest.set(&image("b"), HashSet::new());
        assert!(interest.of(&secret("x")).is_empty());
        assert_eq!(interest.of(&secret("y")), [image("a")]);
    }
}
