//! Readers of the file's scalars and containers, stricter than YAML itself: a quoted number is no
//! number, an absent list is no empty list.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_saphyr::Tagged;

use crate::control::spelling::Spelled;
use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::gateway::GatewayDestination;
use crate::model::policy::StringMatch;
use crate::model::workload::PortMap;

/// A word of a closed set.
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: Spelled> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words<T>(PhantomData<T>);
        impl<T: Spelled> Visitor<'_> for Words<T> {
            type Value = Word<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "one of {}", T::WORDS.join(", "))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_word(text)
                    .map(Word)
                    .ok_or_else(|| E::unknown_variant(text, T::WORDS))
            }
        }
        deserializer.deserialize_str(Words(PhantomData))
    }
}

/// A value written as text.
pub(super) trait FromText: Sized {
    /// What the text has to be.
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for IpAddr {
    const EXPECTED: &'static str = "an IP address";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for IpNet {
    const EXPECTED: &'static str = "an address range with prefix length, such as 10.0.0.0/24";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for NetworkAddress {
    const EXPECTED: &'static str = "<network>/<ip>, such as /10.0.0.1";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for NamespacedHostname {
    const EXPECTED: &'static str = "<namespace>/<hostname>";
    fn from_text(text: &str) -> Option<Self> {
        let key: Self = text.parse().ok()?;
        // A second slash would make the key unremovable: names of services hold exactly one.
        let whole = !key.hostname.is_empty() && !key.hostname.contains('/');
        whole.then_some(key)
    }
}

impl FromText for GatewayDestination {
    const EXPECTED: &'static str = "<network>/<ip> or <namespace>/<hostname>";
    fn from_text(text: &str) -> Option<Self> {
        NetworkAddress::from_text(text)
            .map(Self::Address)
            .or_else(|| NamespacedHostname::from_text(text).map(Self::Hostname))
    }
}

/// A string parsed as `T`.
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: FromText> Visitor<'_> for Reader<T> {
            type Value = Text<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let parsed = T::from_text(text).map(Text);
                parsed.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

/// A range of integers.
pub(super) trait Bounded: Sized {
    /// The range in words.
    const RANGE: &'static str;
    fn from_u64(value: u64) -> Option<Self>;
}

impl Bounded for u16 {
    const RANGE: &'static str = "an unquoted integer from 0 to 65535";
    fn from_u64(value: u64) -> Option<Self> {
        value.try_into().ok()
    }
}

impl Bounded for u32 {
    const RANGE: &'static str = "an unquoted integer from 0 to 4294967295";
    fn from_u64(value: u64) -> Option<Self> {
        value.try_into().ok()
    }
}

/// A port one can connect to.
impl Bounded for NonZeroU16 {
    const RANGE: &'static str = "an unquoted port from 1 to 65535";
    fn from_u64(value: u64) -> Option<Self> {
        u16::try_from(value).ok().and_then(Self::new)
    }
}

/// An unquoted integer.
#[derive(Clone, Copy)]
pub(super) struct Int<T>(pub(super) T);

impl<'de, T: Bounded> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Bounded> Visitor<'_> for Reader<T> {
            type Value = Int<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::RANGE)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                let fits = T::from_u64(value).map(Int);
                fits.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// `true` or `false`, unquoted; absent means false where it may be absent.
#[derive(Clone, Copy, Default)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, unquoted")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Flag(value))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A sequence. Nothing at all is refused: `policies:` with its entries lost must not mean none.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list ([] when empty)")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// A mapping, in the order of the file; the parser refuses a key that comes twice.
pub(super) struct Table<K, V>(pub(super) Vec<(K, V)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Table<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Reader<K, V> {
            type Value = Table<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping ({} when empty)")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Table(entries))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// Service port to target port.
pub(super) type Ports = Table<Int<NonZeroU16>, Int<u16>>;

impl Ports {
    pub(super) fn into_map(self) -> PortMap {
        let entries = self.0.into_iter();
        entries
            .map(|(Int(from), Int(to))| (from.get(), to))
            .collect()
    }
}

/// A string predicate, its kind given by a tag.
pub(super) struct Matcher(pub(super) StringMatch);

/// What may follow the tag.
enum MatcherValue {
    Text(Arc<str>),
    EmptyList,
}

impl<'de> Deserialize<'de> for MatcherValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = MatcherValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(MATCHER_EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MatcherValue::Text(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                match access.next_element::<de::IgnoredAny>()? {
                    None => Ok(MatcherValue::EmptyList),
                    Some(_) => Err(de::Error::invalid_type(Unexpected::Seq, &self)),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

const MATCHER_EXPECTED: &str = "!Exact, !Prefix or !Suffix with a string, or !Presence []";

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Tagged(value, tag) = Tagged::<MatcherValue>::deserialize(deserializer)?;
        let kind = match (tag.as_deref(), value) {
            (Some("!Exact"), MatcherValue::Text(text)) => StringMatch::Exact(text),
            (Some("!Prefix"), MatcherValue::Text(text)) => StringMatch::Prefix(text),
            (Some("!Suffix"), MatcherValue::Text(text)) => StringMatch::Suffix(text),
            (Some("!Presence"), MatcherValue::EmptyList) => StringMatch::Presence,
            (tag, _) => {
                let found = tag.unwrap_or("a value without tag");
                return Err(de::Error::invalid_value(
                    Unexpected::Other(found),
                    &MATCHER_EXPECTED,
                ));
            }
        };
        Ok(Self(kind))
    }
}
