//! Whole transactions through assembly and gathering, compared with a model. Input: the choices of the application that wrote them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstream::replication::simulation::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::transactions(input));
