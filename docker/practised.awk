# Of what a run has counted, what the compiler is told: all that ran, and that the rest did not, which it then builds for
# size. Of code that computes it is told nothing where that did not run: kernels are there for types and functions that
# no run of a bench has, and users do.
#
# Reads and writes the text of `llvm-profdata merge --text`: a function in each paragraph.
BEGIN {
    RS = ""
    FS = "\n"
    ORS = "\n\n"
    computing = "arrow|parquet|datafusion_(common|functions|physical)|core4iter|core5slice|alloc3vec|chrono|memchr|num_|regex"
    dull = "drop_in_place|fmt\\.\\.(Debug|Display)"
}
{
    name = ""
    is_counter = ran = 0
    for (line = 1; line <= NF; line++) {
        if ($line ~ /^#/) is_counter = ($line == "# Counter Values:")
        else if (is_counter && $line != "0") ran = 1
        else if (name == "" && $line !~ /^:/) name = $line
    }
    # The first paragraph says what kind of counts these are.
    if (NR == 1 || ran || name !~ computing || name ~ dull) print
}
