# The list of the tables, in the order of add_isa's calls. Generated, so that it is written anew only where it changes.
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/generated/kernels/isas.inc
     CONTENT "$<JOIN:$<TARGET_PROPERTY:fourfold,fourfold_isas>,\n>\n")

# add_isa(name flags...): src/kernels/<name>.cpp is compiled with flags of its own, and its table joins the list
# kernels/isas.inc.
function(add_isa name)
  set(source src/kernels/${name}.cpp)
  target_sources(fourfold PRIVATE ${source})
  set(flags ${ARGN})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 takes the undefined registers inside its own AVX-512 intrinsics for uninitialized variables.
    list(APPEND flags -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  if(FOURFOLD_FUZZ)
    # libFuzzer's record of every comparison would take most of the time here, and tell it nothing of its input.
    list(APPEND flags -fno-sanitize-coverage=trace-cmp)
  endif()
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")

  set_property(TARGET fourfold APPEND PROPERTY fourfold_isas "FOURFOLD_ISA(${name})")
  target_include_directories(fourfold PRIVATE ${CMAKE_BINARY_DIR}/generated)
endfunction()
