//! `names!`: an enum whose variants are indices, names and sentences at once.
//!
//! Counters, reasons and refusals are said by both processes, by `weftctl`, by the JSON of `replay` and by
//! the documents. One definition serves them all; a test of the documents walks `ALL`.

/// Declares `enum $name` with `ALL`, `index`, `from_index`, `name` (snake case, stable, what users see) and
/// `meaning` (one sentence, the variant's doc comment).
#[macro_export]
macro_rules! names {
    ($(#[$outer:meta])* pub enum $name:ident { $( #[doc = $doc:literal] $variant:ident = $text:literal, )+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $( #[doc = $doc] $variant, )+ }

        impl $name {
            /// Every variant, in order of its index.
            pub const ALL: &'static [$name] = &[$( $name::$variant, )+];
            /// How many variants there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The variant's place in `ALL`, and in any array that counts by it.
            #[inline]
            pub const fn index(self) -> usize { self as usize }
            /// The variant at `index`, if there is one.
            pub fn from_index(index: usize) -> Option<Self> { Self::ALL.get(index).copied() }
            /// The stable name users see.
            pub const fn name(self) -> &'static str { match self { $( $name::$variant => $text, )+ } }
            /// What it means, one sentence.
            pub const fn meaning(self) -> &'static str { match self { $( $name::$variant => $doc.trim_ascii(), )+ } }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result { f.write_str(self.name()) }
        }
    };
}
