//! The walk over the calls, and what it may not meet.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Result, ensure};

use super::disassembly::{Callee, Program};

/// Parts of a Rust name that end the walk with a fault.
const FORBIDDEN: &[(&str, &str)] = &[
    ("panicking::", "a panic"),
    ("unwrap_failed", "a panic"),
    ("expect_failed", "a panic"),
    ("slice_index", "a panic"),
    ("_fail", "a panic"),
    ("panic_", "a panic"),
    ("__rust_", "an allocation"),
    ("__rdl_", "an allocation"),
    ("alloc::alloc::", "an allocation"),
    ("alloc::raw_vec::", "an allocation"),
    ("handle_alloc_error", "an allocation"),
    ("std::io::", "input or output"),
    ("std::sys::", "the system"),
    ("std::thread::", "the system"),
    ("log::", "logging"),
];

/// Functions of C that may be called: memory, and DPDK, where the walk ends.
const MAY_CALL: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp"];
const MAY_CALL_PREFIXES: &[&str] = &["rte_", "weft_"];

/// Calls that are known and accepted: caller, callee. When a worker takes over a snapshot in the very moment in
/// which the manager, in the middle of offering one, has lost its CPU, crossbeam's queue gives it the rest of the
/// time slice. It happens on a change of the configuration only, and only where the two share a CPU. Whether the queue's
/// own function is inlined into the caller is the compiler's choice.
const ACCEPTED: &[(&str, &str)] = &[
    ("site::publish::Subscriber::swap", "sched_yield"),
    ("crossbeam_queue::array_queue::ArrayQueueT::push_or_else", "sched_yield"),
];

/// What a walk found.
#[derive(Debug)]
pub struct Walk {
    /// How many functions it looked at.
    pub visited: usize,
    /// What is wrong, with the way to it.
    pub faults: Vec<String>,
}

/// Walks from every function that `roots` name. Each name must exist: a renamed root must not pass unseen.
pub fn walk(program: &Program, roots: &[String]) -> Result<Walk> {
    let mut came_from: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for root in roots {
        let mut found = false;
        for (address, _) in program.functions().filter(|(_, function)| is_named(&function.name, root)) {
            found = true;
            came_from.entry(address).or_insert(None);
            queue.push_back(address);
        }
        ensure!(
            found,
            "no function {root} in the binary; mark it #[inline(never)], or name another with --root"
        );
    }
    let mut faults = Vec::new();
    while let Some(address) = queue.pop_front() {
        let Some(function) = program.function(address) else {
            continue;
        };
        for callee in function.calls.iter().filter_map(|call| program.callee(address, call)) {
            let fault = match callee {
                Callee::Unknown(text) => Some(format!("an indirect call ({text})")),
                Callee::Library(name) if ACCEPTED.contains(&(function.name.as_str(), name.as_str())) => None,
                Callee::Library(name) => judge_c(&name),
                Callee::Function(to) => {
                    let name = program.function(to).map_or("", |function| function.name.as_str());
                    let fault = judge(name);
                    if fault.is_none() && is_rust(name) && !came_from.contains_key(&to) {
                        came_from.insert(to, Some(address));
                        queue.push_back(to);
                    }
                    fault
                }
            };
            if let Some(fault) = fault {
                faults.push(format!("{fault}; reached by {}", way(program, &came_from, address)));
            }
        }
    }
    faults.sort();
    faults.dedup();
    Ok(Walk { visited: came_from.len(), faults })
}

/// What is wrong with calling `name`.
fn judge(name: &str) -> Option<String> {
    if !is_rust(name) {
        return judge_c(name);
    }
    let (_, what) = FORBIDDEN.iter().find(|(part, _)| name.contains(part))?;
    Some(format!("{what}: {name}"))
}

fn judge_c(name: &str) -> Option<String> {
    if MAY_CALL.contains(&name) || MAY_CALL_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let what = match name {
        "malloc" | "calloc" | "realloc" | "free" | "posix_memalign" | "aligned_alloc" => "an allocation",
        name if name.starts_with("__rust_") => "an allocation",
        _ => "a function that is neither memory nor DPDK",
    };
    Some(format!("{what}: {name}"))
}

fn is_rust(name: &str) -> bool {
    name.contains("::")
}

/// Whether `name` is `root`, one of its instances or a closure in it.
fn is_named(name: &str, root: &str) -> bool {
    name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `poll -> decide -> find`.
fn way(program: &Program, came_from: &BTreeMap<u64, Option<u64>>, to: u64) -> String {
    let mut names = Vec::new();
    let mut next = Some(to);
    while let Some(address) = next {
        names.push(program.function(address).map_or("?", |function| function.name.as_str()));
        next = came_from.get(&address).copied().flatten();
    }
    names.reverse();
    names.join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "weft_dataplane::worker::poll";

    /// A worker that decides, copies, transmits and has a switch.
    const CLEAN: &str = "\
Disassembly of section .text:

0000000000001000 <weft_dataplane::worker::poll>:
    1000:\tpush   %rbp
    1001:\tcall   2000 <<engine[1f]::pipeline::decide::burst>>
    1006:\tnotrack jmp *%rax
    1008:\tjne    1000 <weft_dataplane::worker::poll>
    100a:\tcall   *0x2f(%rip)        # 5fe8 <memcpy@GLIBC_2.14>
    1010:\tjmp    3000 <weft_rx_burst>

0000000000002000 <<engine[1f]::pipeline::decide::burst>>:
    2000:\tret

0000000000003000 <weft_rx_burst>:
    3000:\tcall   *0x18(%rax)

0000000000004000 <core::panicking::panic_bounds_check>:
    4000:\tud2

0000000000004100 <elsewhere::at::start>:
    4100:\tcall   4000 <core::panicking::panic_bounds_check>
";
    const SLOTS: &str = "\
DYNAMIC RELOCATION RECORDS
OFFSET           TYPE              VALUE
0000000000005fe8 R_X86_64_GLOB_DAT  memcpy@GLIBC_2.14
0000000000005ff0 R_X86_64_GLOB_DAT  malloc@GLIBC_2.2.5
0000000000005ff8 R_X86_64_RELATIVE  *ABS*+0x0000000000004000
0000000000006000 R_X86_64_GLOB_DAT  sched_yield@GLIBC_2.2.5
";

    fn faults(code: &str) -> Vec<String> {
        let mut program = Program::default();
        program.read_code(code.as_bytes()).unwrap();
        program.read_slots(SLOTS.as_bytes()).unwrap();
        walk(&program, &[ROOT.to_owned()]).unwrap().faults
    }

    #[test]
    fn a_packet_path_without_a_panic_passes_and_dpdk_ends_the_walk() {
        assert_eq!(faults(CLEAN), Vec::<String>::new());
    }

    #[test]
    fn a_panic_is_found_with_the_way_to_it() {
        let code = CLEAN.replace("2000:\tret", "2000:\tcall   4000 <core::panicking::panic_bounds_check>");
        assert_eq!(
            faults(&code),
            ["a panic: core::panicking::panic_bounds_check; reached by \
              weft_dataplane::worker::poll -> engine::pipeline::decide::burst"]
        );
    }

    #[test]
    fn a_tail_jump_to_a_panic_and_one_through_a_slot_are_found() {
        let jump = CLEAN.replace("2000:\tret", "2000:\tja     4000 <core::panicking::panic_bounds_check>");
        assert_eq!(faults(&jump).len(), 1);
        let slot =
            CLEAN.replace("2000:\tret", "2000:\tcall   *0x1(%rip)        # 5ff8 <_GLOBAL_OFFSET_TABLE_+0x8>");
        assert_eq!(faults(&slot).len(), 1);
    }

    #[test]
    fn an_allocation_in_a_library_is_found() {
        let code = CLEAN.replace("# 5fe8 <memcpy@GLIBC_2.14>", "# 5ff0 <malloc@GLIBC_2.2.5>");
        assert_eq!(faults(&code), ["an allocation: malloc; reached by weft_dataplane::worker::poll"]);
    }

    #[test]
    fn an_accepted_call_is_accepted_from_its_caller_only() {
        let yields = "call   *0x1(%rip)        # 6000 <sched_yield>";
        let code = CLEAN.replace("2000:\tret", &format!("2000:\t{yields}"));
        assert_eq!(faults(&code).len(), 1);
        let accepted =
            code.replace("<engine[1f]::pipeline::decide::burst>", "site::publish::Subscriber::swap");
        assert!(faults(&accepted).is_empty());
    }

    #[test]
    fn an_allocator_of_rust_and_a_stray_system_call_are_found() {
        let code =
            CLEAN.replace("3000 <weft_rx_burst>", "3000 <write>").replace("<weft_rx_burst>:", "<write>:");
        assert_eq!(faults(&code).len(), 1);
        let code = CLEAN.replace("<weft_rx_burst>:", "<__rustc[2a]::__rust_alloc>:");
        assert_eq!(
            faults(&code),
            ["an allocation: __rustc::__rust_alloc; reached by weft_dataplane::worker::poll"]
        );
    }

    #[test]
    fn an_indirect_call_in_our_own_code_is_found() {
        let code = CLEAN.replace("2000:\tret", "2000:\tcall   *%rax");
        assert_eq!(faults(&code).len(), 1);
        assert!(faults(&code)[0].starts_with("an indirect call (call *%rax); reached by"));
    }

    #[test]
    fn a_call_through_a_register_that_holds_a_slot_is_followed() {
        let through = |slot: &str| {
            let code = format!("2000:\tmov    0x2f(%rip),%r13        # {slot} <x>\n    2004:\tcall   *%r13");
            faults(&CLEAN.replace("2000:\tret", &code))
        };
        assert!(through("5fe8").is_empty());
        assert_eq!(through("5ff0").len(), 1);
    }

    #[test]
    fn a_root_that_does_not_exist_is_an_error() {
        let mut program = Program::default();
        program.read_code(CLEAN.as_bytes()).unwrap();
        assert!(walk(&program, &[ROOT.to_owned(), "engine::gone".to_owned()]).is_err());
    }
}
