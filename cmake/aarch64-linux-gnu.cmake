# Debian's cross compiler for AArch64, or clang++ with its libraries; programs are run by qemu. Libraries of this
# machine are of no use, but for what is headers alone; the preset aarch64 has GoogleTest built from its sources.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++ CACHE STRING "")
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
set(FOURFOLD_LEAST_CPU ${CMAKE_CROSSCOMPILING_EMULATOR} -cpu cortex-a53)
set(fmt_DIR /usr/lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu/cmake/fmt CACHE PATH "")
