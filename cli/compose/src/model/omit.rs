//! Which fields are left out when they are written: Go's `omitempty`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, DeviceCount, Duration, Float, HealthTest, Strings};

/// Whether a field's value says nothing.
pub(super) trait Omit {
    fn omit(&self) -> bool;
}

/// A field that is always written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Always<T>(pub T);

macro_rules! omit {
    ($($type:ty: |$value:ident| $when:expr;)*) => {
        $(impl Omit for $type {
            fn omit(&self) -> bool {
                let $value = self;
                $when
            }
        })*
    };
}

omit! {
    String: |text| text.is_empty();
    bool: |flag| !*flag;
    i64: |number| *number == 0;
    u64: |number| *number == 0;
    u32: |number| *number == 0;
    u16: |number| *number == 0;
    Float: |number| number.0 == 0.0;
    Bytes: |size| size.0 == 0;
    Duration: |time| time.0 == 0;
    DeviceCount: |count| count.0 == 0;
    Strings: |list| list.0.is_empty();
    HealthTest: |list| list.0.is_empty();
}

impl<T> Omit for Option<T> {
    fn omit(&self) -> bool {
        self.is_none()
    }
}

impl<T> Omit for Vec<T> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Omit for BTreeMap<K, V> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Omit for Always<T> {
    fn omit(&self) -> bool {
        false
    }
}

/// A part of the model, with its fields in docker compose's order: the order is part of the configuration's hash.
macro_rules! record {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
            #[serde(default)]
            pub struct $name {
                $(
                    $(#[$field_meta])*
                    #[serde(skip_serializing_if = "super::omit::Omit::omit")]
                    pub $field: $type,
                )*
            }

            impl super::omit::Omit for $name {
                /// Like a struct of Go, it is written even when it says nothing.
                fn omit(&self) -> bool {
                    false
                }
            }
        )*
    };
}
