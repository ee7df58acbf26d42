//! What objdump prints, as functions and the calls between them.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::Result;

use super::registers::Registers;

/// A call, or a jump out of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// To an address of this program.
    Direct(u64),
    /// Through a slot at an address, which the loader fills.
    Slot(u64),
    /// Through a register or memory, as objdump prints it.
    Indirect(String),
}

/// One function.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name as a path, without generic brackets.
    pub name: String,
    /// What it calls, in order.
    pub calls: Vec<Call>,
}

/// A disassembled program.
#[derive(Debug, Default)]
pub struct Program {
    functions: BTreeMap<u64, Function>,
    slots: BTreeMap<u64, Slot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Library(String),
    Own(u64),
}

/// Where a call leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callee {
    /// To a function of this program, by its address.
    Function(u64),
    /// To a function of a shared library, by its name.
    Library(String),
    /// Nobody knows before it runs.
    Unknown(String),
}

impl Program {
    /// Whether no function is known.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// All functions with their addresses.
    pub fn functions(&self) -> impl Iterator<Item = (u64, &Function)> {
        self.functions.iter().map(|(address, function)| (*address, function))
    }

    /// The function that begins at `address`.
    pub fn function(&self, address: u64) -> Option<&Function> {
        self.functions.get(&address)
    }

    /// Where a call of the function at `from` leads; nothing where it stays inside it.
    pub fn callee(&self, from: u64, call: &Call) -> Option<Callee> {
        match call {
            Call::Direct(to) => self.containing(*to, from),
            Call::Slot(slot) => match self.slots.get(slot) {
                Some(Slot::Library(name)) => Some(Callee::Library(name.clone())),
                Some(Slot::Own(to)) => self.containing(*to, from),
                None => Some(Callee::Unknown(format!("slot {slot:#x}"))),
            },
            Call::Indirect(text) => Some(Callee::Unknown(text.clone())),
        }
    }

    fn containing(&self, to: u64, from: u64) -> Option<Callee> {
        match self.functions.range(..=to).next_back() {
            Some((start, _)) if *start == from => None,
            Some((start, function)) => Some(match function.name.strip_suffix("@plt") {
                Some(name) => Callee::Library(library_name(name)),
                None => Callee::Function(*start),
            }),
            None => Some(Callee::Unknown(format!("address {to:#x}"))),
        }
    }

    /// Reads the output of `objdump -d --no-show-raw-insn -C`.
    pub fn read_code(&mut self, lines: impl BufRead) -> Result<()> {
        let mut here = None;
        let mut registers = Registers::default();
        for line in lines.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if let Some((address, name)) = header(&line) {
                // Two names of one address: the first one stays, the calls are the same.
                self.functions
                    .entry(address)
                    .or_insert_with(|| Function { name: plain(name), calls: Vec::new() });
                here = Some(address);
                registers.clear();
            } else if let Some((mnemonic, operands)) = instruction(&line) {
                let call = call(mnemonic, operands, &registers);
                registers.step(mnemonic, operands);
                if let (Some(call), Some(function)) =
                    (call, here.and_then(|address| self.functions.get_mut(&address)))
                {
                    function.calls.push(call);
                }
            }
        }
        Ok(())
    }

    /// Reads the output of `objdump -R`.
    pub fn read_slots(&mut self, lines: impl BufRead) -> Result<()> {
        for line in lines.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split_whitespace();
            let (Some(offset), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Some(offset), true) = (hex(offset), kind.starts_with("R_")) else {
                continue;
            };
            let slot = match value.strip_prefix("*ABS*+0x") {
                Some(address) => hex(address).map(Slot::Own),
                None => Some(Slot::Library(library_name(value))),
            };
            if let Some(slot) = slot {
                self.slots.insert(offset, slot);
            }
        }
        Ok(())
    }
}

/// `0000000000012340 <name>:`
fn header(line: &str) -> Option<(u64, &str)> {
    let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
    Some((hex(address)?, name))
}

/// `   12340:\tcall   45670 <name>` as its mnemonic, prefixes dropped, and its operands.
fn instruction(line: &str) -> Option<(&str, &str)> {
    let (address, text) = line.split_once(":\t")?;
    hex(address.trim())?;
    let mut text = text.trim();
    for prefix in ["notrack ", "bnd ", "data16 ", "rex.W ", "addr32 "] {
        text = text.strip_prefix(prefix).unwrap_or(text).trim_start();
    }
    let (mnemonic, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Some((mnemonic, operands.trim()))
}

fn call(mnemonic: &str, operands: &str, registers: &Registers) -> Option<Call> {
    let is_call = mnemonic.starts_with("call");
    if !is_call && !mnemonic.starts_with('j') {
        return None;
    }
    let Some(pointer) = operands.strip_prefix('*') else {
        return hex(operands.split_whitespace().next()?).map(Call::Direct);
    };
    if pointer.contains("(%rip)") {
        // objdump computes the place for us: `*0x2f(%rip)        # 5fe8 <...>`.
        let slot = pointer.split_once("# ").and_then(|(_, place)| hex(place.split_whitespace().next()?));
        return Some(slot.map_or_else(|| Call::Indirect(operands.to_owned()), Call::Slot));
    }
    if let Some(call) = registers.called(pointer) {
        return Some(call);
    }
    // A jump through a register or through an indexed table is a `match`; through a field it leaves the function.
    let is_table = !is_call && (pointer.starts_with('%') || pointer.contains(','));
    (!is_table).then(|| Call::Indirect(format!("{mnemonic} {operands}")))
}

pub(super) fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// `memcpy@GLIBC_2.14` is `memcpy`.
fn library_name(name: &str) -> String {
    name.split('@').next().unwrap_or(name).to_owned()
}

/// A name without brackets and crate hashes: `<engine[1f]::Pipeline>::process` is `engine::Pipeline::process`.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut hash = false;
    for c in name.chars() {
        match c {
            '[' => hash = true,
            ']' => hash = false,
            '<' | '>' => {}
            _ if hash => {}
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_a_call_when_it_leaves_the_function() {
        let call = |text: &str| {
            let line = format!("   12:\t{text}");
            let (mnemonic, operands) = instruction(&line)?;
            super::call(mnemonic, operands, &Registers::default())
        };
        assert_eq!(call("call   45670 <core::panicking::panic>"), Some(Call::Direct(0x45670)));
        assert_eq!(call("jne    45670 <f+0x10>"), Some(Call::Direct(0x45670)));
        assert_eq!(call("call   *0x2f(%rip)        # 5fe8 <memcpy@GLIBC_2.14>"), Some(Call::Slot(0x5fe8)));
        assert_eq!(call("call   *0x18(%rax)"), Some(Call::Indirect("call *0x18(%rax)".to_owned())));
        assert_eq!(call("jmp    *0x18(%rax)"), Some(Call::Indirect("jmp *0x18(%rax)".to_owned())));
        assert_eq!(call("notrack jmp *%rax"), None);
        assert_eq!(call("jmp    *(%rcx,%rax,8)"), None);
        assert_eq!(call("mov    %rax,%rcx"), None);
        assert_eq!(call("bnd jmp 45670 <f>"), Some(Call::Direct(0x45670)));
    }

    #[test]
    fn a_name_is_read_as_a_path() {
        assert_eq!(
            plain("<engine[1f3]::pipeline::Pipeline>::process"),
            "engine::pipeline::Pipeline::process"
        );
        assert_eq!(header("0000000000012340 <a::b>:"), Some((0x12340, "a::b")));
        assert_eq!(header("Disassembly of section .text:"), None);
    }
}
