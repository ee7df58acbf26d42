//! Which register holds the address of a function.
//!
//! A compiler that calls a library function twice loads its address once: `mov slot(%rip),%r13`, then `call *%r13`.
//! Here the loads are followed in the order of addresses, not of branches. That is how compilers lay such code out;
//! where it is not, the call is reported as indirect, which is the safe side.

use std::collections::BTreeMap;

use super::disassembly::{Call, hex};

/// Registers that a call may overwrite (System V ABI for x86-64).
const CALLER_SAVED: &[&str] = &["ax", "cx", "dx", "si", "di", "8", "9", "10", "11"];

/// What the registers hold, as far as it matters.
#[derive(Debug, Default)]
pub struct Registers {
    held: BTreeMap<String, Call>,
}

impl Registers {
    /// Forgets all: another function begins.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// What a call through `%register` calls.
    pub fn called(&self, register: &str) -> Option<Call> {
        self.held.get(&whole(register)?).cloned()
    }

    /// Takes note of one instruction.
    pub fn step(&mut self, mnemonic: &str, operands: &str) {
        if mnemonic.starts_with("call") {
            self.held.retain(|register, _| !CALLER_SAVED.contains(&register.as_str()));
            return;
        }
        if ["cmp", "test", "push", "j", "bt"].iter().any(|reads| mnemonic.starts_with(reads)) {
            return;
        }
        let (written, place) = operands.split_once('#').unwrap_or((operands, ""));
        let Some(register) = written.trim().rsplit(',').next().and_then(whole) else {
            return;
        };
        self.held.remove(&register);
        let Some(place) = place.split_whitespace().next().and_then(hex) else {
            return;
        };
        if !written.contains("(%rip),") {
            return;
        }
        match mnemonic {
            "mov" => self.held.insert(register, Call::Slot(place)),
            "lea" => self.held.insert(register, Call::Direct(place)),
            _ => None,
        };
    }
}

/// `%r13d` and `%r13` are the register `13`; `%eax`, `%al` and `%rax` are `ax`.
fn whole(register: &str) -> Option<String> {
    let name = register.strip_prefix('%')?;
    if let Some(number) = name.strip_prefix('r').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Some(number.trim_end_matches(['d', 'w', 'b']).to_owned());
    }
    let name = match name {
        "al" | "ah" => "ax",
        "bl" | "bh" => "bx",
        "cl" | "ch" => "cx",
        "dl" | "dh" => "dx",
        "sil" => "si",
        "dil" => "di",
        "bpl" => "bp",
        "spl" => "sp",
        name => name.strip_prefix(['r', 'e']).filter(|rest| rest.len() == 2).unwrap_or(name),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_until_the_register_is_written() {
        let mut registers = Registers::default();
        registers.step("mov", "0x2f(%rip),%r13        # 5fe8 <memcpy@GLIBC_2.14>");
        registers.step("cmp", "%rax,%r13");
        registers.step("call", "2000 <f>");
        assert_eq!(registers.called("%r13"), Some(Call::Slot(0x5fe8)));
        registers.step("mov", "%eax,%r13d");
        assert_eq!(registers.called("%r13"), None);
    }

    #[test]
    fn a_call_overwrites_what_it_may() {
        let mut registers = Registers::default();
        registers.step("lea", "0x2f(%rip),%rax        # 4000 <f>");
        assert_eq!(registers.called("%rax"), Some(Call::Direct(0x4000)));
        registers.step("call", "2000 <g>");
        assert_eq!(registers.called("%rax"), None);
    }

    #[test]
    fn a_parameter_is_not_known() {
        let mut registers = Registers::default();
        registers.step("mov", "%rsi,%r14");
        registers.step("mov", "0x18(%rsi),%r14");
        assert_eq!(registers.called("%r14"), None);
    }
}
