# This machine's compiler, with programs run by qemu on an x86-64 CPU that has no AVX.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-x86_64 -cpu Nehalem)
set(FOURFOLD_LEAST_CPU ${CMAKE_CROSSCOMPILING_EMULATOR})
